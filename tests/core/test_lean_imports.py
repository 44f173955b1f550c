"""Commands start without the packages that torchmetrics imports for other subjects."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from vision_lab.core.lean_imports import import_without

import_without("torchmetrics", optional=("scipy", "matplotlib"), first=("torch", "torchvision"))
import vision_lab.modes.train

print(sorted({"scipy", "matplotlib", "torchmetrics"} & set(sys.modules)))
import matplotlib.pyplot
import scipy.signal
import torchmetrics
from lightning_utilities.core.imports import RequirementCache, package_available

print(bool(RequirementCache("matplotlib")), package_available("scipy"))
print(type(torchmetrics.__spec__.loader).__name__, [type(f).__name__ for f in sys.meta_path][0])
"""


@pytest.mark.slow
def test_optional_packages_are_hidden_while_torchmetrics_is_imported():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    during, afterwards, loaders = done.stdout.splitlines()
    assert during == "['torchmetrics']"
    assert afterwards == "True True"
    assert loaders.startswith("SourceFileLoader ")
    assert "_Finder" not in loaders
