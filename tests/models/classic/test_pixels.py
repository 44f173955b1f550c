"""Images as OpenCV takes them."""

import numpy as np
import torch

from tests.models.classic.frames import noise
from vision_lab.models.classic.pixels import crop_window, pad, resize, to_pixels


def test_windows_are_cut_out_and_resized():
    pixels = noise(40, 60)
    crop = crop_window(pixels, torch.tensor([10.0, 5.0, 30.0, 25.0]), (20, 20))
    assert np.array_equal(crop, pixels[5:25, 10:30])
    outside = crop_window(pixels, torch.tensor([-10.0, 0.0, 10.0, 20.0]), (20, 20))
    assert np.array_equal(outside[:, 10:], pixels[:20, :10])
    assert (outside[:, :10] == pixels[:20, :1]).all()
    smaller = crop_window(pixels, torch.tensor([0.0, 0.0, 60.0, 40.0]), (20, 30))
    assert smaller.shape == (20, 30, 3)


def test_what_is_finer_than_the_result_is_averaged():
    stripes = np.zeros((60, 90), np.uint8)
    stripes[:, ::2] = 200
    crop = crop_window(stripes, torch.tensor([4.0, 2.0, 84.0, 58.0]), (14, 20))
    assert np.abs(crop.astype(int) - 100).max() <= 2
    halved = crop_window(stripes, torch.tensor([4.0, 2.0, 84.0, 22.0]), (20, 40))  # only its width
    assert np.abs(halved.astype(int) - 100).max() <= 2


def test_images_of_three_channels_are_kept_and_others_have_one():
    image = torch.randint(0, 255, (4, 6, 8), dtype=torch.uint8)
    assert np.array_equal(to_pixels(image[:3])[2, 5], image[:3, 2, 5].numpy())
    assert np.array_equal(to_pixels(image[:1]), image[0].numpy())
    mean = image.float().mean(dim=0).round()
    assert np.array_equal(to_pixels(image), mean.numpy())


def test_the_border_is_repeated_around_gray_and_color_images():
    gray, color = noise(6, 8)[:, :, 0], noise(6, 8)
    assert pad(gray, 2).shape == (10, 12)
    padded = pad(color, 2)
    assert padded.shape == (10, 12, 3)
    assert np.array_equal(padded[2:-2, 2:-2], color)
    assert np.array_equal(padded[0, 0], color[0, 0])


def test_images_are_resized_to_height_and_width():
    assert resize(noise(40, 60), (20, 90)).shape == (20, 90, 3)
    halved = resize(noise(40, 60), (20, 30))
    expected = noise(40, 60)[:2, :2].astype(float).mean(axis=(0, 1))
    assert np.abs(halved[0, 0] - expected).max() <= 1
