"""The table of our kernels by XLA's."""

from swaptalk_jax.benchmarks import kernels


def test_a_row_names_the_shape_and_a_ratio_with_its_range(monkeypatch, capsys):
    monkeypatch.setattr(kernels, "CONVOLUTIONS", (("upsampled", "here", (1, 2, 2, 4), 4, 1),))
    monkeypatch.setattr(kernels, "NORMS", (("there", (1, 2, 2, 8)),))
    kernels.tell(2)
    head, convolution, norm = capsys.readouterr().out.splitlines()
    assert "2 turns" in head
    assert "upsampled" in convolution and "(1, 2, 2, 4)" in convolution and " ms " in convolution
    assert norm.split()[:3] == ["norm,", "swish", "there"] and norm.endswith(")")
