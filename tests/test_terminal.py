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


def test_a_warning_is_one_line_and_those_of_pillow_are_left_out():
    before = warnings.formatwarning
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with clear_errors():
            warnings.warn_explicit("two\n  lines", UserWarning, "data.py", 1, module="hf_detr.data")
            warnings.warn_explicit("of no file", UserWarning, "Image.py", 1, module="PIL.Image")
            [kept] = caught
            assert warnings.formatwarning(kept.message, kept.category, kept.filename, kept.lineno) == (
                "hf-detr: warning: two lines\n"
            )
    assert warnings.formatwarning is before
