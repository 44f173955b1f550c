"""The project is written in the terms of its field and in American spelling (CONTRIBUTING.md)."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent

PATTERNS = (
    "vision_lab/**/*.py",
    "conf/**/*.yaml",
    "docs/*.md",
    "experiments/**/*.md",
    "experiments/**/*.py",
    "*.md",
)
"""Files with text of our own; class names and licenses of others are not searched."""

REPLACEMENTS = {
    r"pictures?": "image",
    r"slopes?": "gradient",
    r"surest?": "score, highest-scoring",
    r"told|tells": "reported, reports",
    r"said": "reported, predicted",
    r"strangers?": "from others, unexpected",
    r"heed\w*": "consider",
    r"kin": "and others like it",
    r"mend\w*": "fix",
    r"learnt": "learned, pretrained",
    r"trunks?": "backbone",
    r"to the bit": "bit-exact",
    r"(go|goes|going|went) on": "resume, continue",
    r"anew": "again",
    r"strayed?": "unexpected",
    r"layer of the classes": "classification layer",
    r"first weights": "initial weights",
    r"colou(r\w*)": "color",
    r"grey\w*": "gray",
    r"neighbour\w*": "neighbor",
    r"(optim|normal|initial|visual|organ|general|summar|synchron|serial|recogn|minim|maxim)is(e\w*|ing|ation\w*|ers?)": "-ize",
    r"centred?": "center",
    r"metre": "meter",
    r"licence": "license",
}  # fmt: skip
"""Words that this project once used, or would use in British spelling, and what to write."""

EXCEPTIONS = {
    "experiments/article/README.md": (),
}


def test_text_uses_the_terms_of_the_field():
    files = sorted({file for pattern in PATTERNS for file in ROOT.glob(pattern)})
    assert len(files) > 150
    found = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        for pattern, instead in REPLACEMENTS.items():
            for match in re.finditer(rf"\b{pattern}\b", text, re.IGNORECASE):
                line = text.count("\n", 0, match.start()) + 1
                place = f"{file.relative_to(ROOT)}:{line}"
                found.append(f"{place}: {match.group()} ({instead})")
    assert not found, "\n".join(found)
