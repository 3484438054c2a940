"""LPIPS by weights of the user: against a slow network in numpy, and files that are not right."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.tokenizer.test_backbones import QUICK, task
from tests.train.toys import pages
from tokenizer.perceptual import PerceptualConfig, perceptual_of, read_perceptual
from tokenizer.task import LossConfig

STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
CHANNELS = (64, 128, 256, 512, 512)


@pytest.fixture(scope="module")
def arrays():
    """A random VGG16 with torchvision's and LPIPS's names."""
    rng, found, before = np.random.default_rng(0), {}, 3
    for stage, (layers, size) in enumerate(zip(STAGES, CHANNELS, strict=True)):
        for i in layers:
            kernel = rng.standard_normal((size, before, 3, 3), np.float32)
            found[f"features.{i}.weight"] = kernel * (2 / (9 * before)) ** 0.5
            found[f"features.{i}.bias"] = rng.standard_normal(size, np.float32) * 0.1
            before = size
        found[f"lin{stage}.model.1.weight"] = rng.random((1, size, 1, 1), np.float32)
    return found


@pytest.fixture(scope="module")
def network(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file(arrays, path)
    return perceptual_of(PerceptualConfig(str(path)))


def slowly(arrays, page, painted):
    """LPIPS of two pictures [Y X 3], channels first, one kernel tap after another."""

    def convolved(x, kernel, bias):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        taps = [
            np.tensordot(kernel[:, :, i, j], padded[:, i : i + x.shape[1], j : j + x.shape[2]], 1)
            for i in range(3)
            for j in range(3)
        ]
        return sum(taps) + bias[:, None, None]

    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    seen = [((picture - shift) / scale).transpose(2, 0, 1) for picture in (page, painted)]
    total = 0.0
    for stage, layers in enumerate(STAGES):
        if stage:
            seen = [
                x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2).max((2, 4)) for x in seen
            ]
        for i in layers:
            weight, bias = arrays[f"features.{i}.weight"], arrays[f"features.{i}.bias"]
            seen = [np.maximum(convolved(x, weight, bias), 0) for x in seen]
        here, there = (x / (np.sqrt(np.square(x).sum(0)) + 1e-10) for x in seen)
        linear = arrays[f"lin{stage}.model.1.weight"].reshape(-1)
        total += np.tensordot(linear, np.square(here - there), 1).mean()
    return total


def test_the_distance_is_that_of_the_paper(arrays, network):
    page, painted = (pages()[0]["pixels"][:2, :16, :32] / 127.5 - 1.0 for _ in range(2))
    painted = np.roll(painted, 1, axis=2)
    distance = jax.jit(network, compiler_options=QUICK)
    wanted = np.mean([slowly(arrays, *pair) for pair in zip(page, painted, strict=True)])
    assert float(distance(jnp.float32(page), jnp.float32(painted))) == pytest.approx(wanted, 1e-3)
    assert network.learnt and wanted > 0.01
    assert float(distance(jnp.float32(page), jnp.float32(page))) == 0


def test_it_pulls_the_painting_and_is_off_without_weights(network, caplog):
    played = task("patch", losses=LossConfig(l1=0.0, perceptual=1.0))
    with caplog.at_level(logging.WARNING, "absl"):
        assert perceptual_of(PerceptualConfig()) is None
    assert "losses.perceptual is off: config.perceptual.weights names no VGG16" in caplog.text
    ones = jnp.ones((1, 16, 16, 3))
    terms = played.terms(ones, {})
    assert terms == {}  # a task without a network has no such term
    looked = dataclasses.replace(played, perceptual=network).terms(ones, {})["perceptual"]
    pull = jax.jit(jax.grad(looked), compiler_options=QUICK)(0.5 * ones)
    assert np.isfinite(pull).all() and float(jnp.abs(pull).max()) > 0


def test_files_that_are_not_right_are_named(arrays, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file '.*vgg.safetensors'.*perceptual to 0"):
        read_perceptual(tmp_path / "vgg.safetensors")
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match=r"text is no safetensors file .*: export it anew"):
        read_perceptual(tmp_path / "text")
    plain = {name: array for name, array in arrays.items() if name.startswith("features")}
    save_file(plain, tmp_path / "plain")
    assert not read_perceptual(tmp_path / "plain").learnt
    del plain["features.5.bias"]
    plain["features.0.weight"] = plain["features.2.weight"]
    save_file(plain, tmp_path / "lacking")
    with pytest.raises(ValueError, match=r"lacks 2 arrays .*features.0.weight of shape .*missing"):
        read_perceptual(tmp_path / "lacking")
