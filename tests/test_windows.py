"""Long clips by windows: nothing changes where one window is enough, and every frame is answered for."""

import torch

from minit2v.diffusion.windows import shared_noise, starts, windowed


def test_windows_cover_every_frame_and_end_with_the_clip():
    for frames in range(1, 50):
        for window in (1, 2, 7, 16):
            begin = starts(frames, window)
            covered = {i for start in begin for i in range(start, start + window)}
            assert set(range(frames)) <= covered and (frames < window or max(covered) == frames - 1)
            assert begin == sorted(set(begin))


def test_a_network_that_sees_no_neighbours_is_not_changed():
    x, t = torch.randn(2, 4, 37, 3, 5), torch.tensor([7, 500])
    frame_by_frame = lambda x, t, context: x.sin() * context[:, None, None, None, None] + t[:, None, None, None, None]
    context = torch.tensor([1.0, 2.0])
    assert torch.allclose(windowed(frame_by_frame, 16)(x, t, context), frame_by_frame(x, t, context), atol=1e-4)


def test_no_window_is_longer_than_what_the_network_knows():
    seen = []
    unet = lambda x, t, context: (seen.append(x.shape[2]), x)[1]
    for frames in (3, 16, 17, 40):
        windowed(unet, 16)(torch.zeros(1, 4, frames, 2, 2), None, None)
    assert seen[:2] == [3, 16] and set(seen[2:]) == {16}


def test_answers_blend_without_a_seam():
    """Two windows that disagree: the answer goes over from the first to the second little by little."""
    calls = iter([0.0, 1.0])
    unet = lambda x, t, context: torch.full_like(x, next(calls))
    blended = windowed(unet, 16)(torch.zeros(1, 1, 24, 1, 1), None, None).flatten()
    assert (blended[:8] == 0).all() and (blended[16:] == 1).all()
    assert (blended.diff() >= 0).all() and blended.diff().max() < 0.2


def test_later_noise_is_the_first_windows_in_another_order():
    noise = torch.randn(2, 4, 40, 3, 3)
    shared = shared_noise(noise, 16)
    assert torch.equal(shared[:, :, :16], noise[:, :, :16])
    assert torch.equal(shared[:, :, 16:32].sort(dim=2).values, noise[:, :, :16].sort(dim=2).values)
    assert not torch.equal(shared[:, :, 16:32], noise[:, :, :16])


def test_a_network_that_is_told_frame_numbers_is_told_only_those_that_it_learnt():
    """A clip as long as in training has the numbers 0, 1, 2, …; a longer one is spread over them, in windows too."""
    told = []
    unet = lambda x, t, context, positions: (told.append(positions), x)[1]
    windowed(unet, 16, learnt=16)(torch.zeros(1, 1, 16, 1, 1), None, None)
    assert torch.equal(told.pop(), torch.arange(16)[None])
    for window in (32, 16):
        told.clear()
        windowed(unet, window, learnt=16)(torch.zeros(1, 1, 32, 1, 1), None, None)
        numbers = {number for positions in told for number in positions.flatten().tolist()}
        assert sorted(numbers) == torch.linspace(0, 15, 32).tolist() or torch.allclose(
            torch.tensor(sorted(numbers)), torch.linspace(0, 15, 32))
        assert all(positions.shape == (1, window) for positions in told)
