"""A command says every error in one line."""

import warnings

import pytest
import torch
import typer

from hf_detr.terminal import clear_errors, without_traceback


def test_a_missing_extra_is_named(capsys: pytest.CaptureFixture):
    with pytest.raises(typer.Exit) as caught, clear_errors():
        raise ModuleNotFoundError("No module named 'datasets'", name="datasets")
    assert caught.value.exit_code == 2
    assert "datasets is not installed" in capsys.readouterr().err


def test_errors_of_loader_workers_lose_their_traceback():
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise ValueError("7.jpg: the image cannot be decoded (why: truncated)")

    with pytest.raises(ValueError) as caught:
        list(torch.utils.data.DataLoader(Broken(), num_workers=1))
    assert without_traceback(str(caught.value)) == "7.jpg: the image cannot be decoded (why: truncated)"
    assert without_traceback("two\nlines") == "two\nlines"


def test_a_warning_is_one_line_and_those_of_pillow_are_left_out(capsys: pytest.CaptureFixture[str]):
    before = warnings.showwarning
    with clear_errors():
        warnings.warn("two\nlines", stacklevel=1)
        warnings.warn_explicit("a large picture", UserWarning, "Image.py", 1, module="PIL.Image")
    assert capsys.readouterr().err == "hf-detr: warning: two lines\n"
    assert warnings.showwarning is before
