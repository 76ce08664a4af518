"""The square ring, which an adapter learns: it is drawn as it is said, and told from the old shapes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from minit2v.datasets import find_data
from minit2v.datasets.moving_things import MovingThings
from minit2v.lab.course.new_shape import drawn, said, specs, write

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import new_shape  # noqa: E402


def test_the_judge_reads_every_attribute_of_a_drawn_square_ring():
    shown = specs(24, seed=5)
    right = [new_shape.judged(clip, spec) for clip, spec in zip(drawn(shown, seed=5), shown)]
    assert all(one["all"] for one in right)
    assert new_shape.counted(right)["all"][0] == 100
    wrong = [new_shape.judged(clip, spec) for clip, spec in zip(drawn(shown, seed=5), shown[1:] + shown[:1])]
    assert 0 < sum(one["all"] for one in wrong) + sum(one["motion"] for one in wrong) < len(wrong)


def test_no_old_shape_is_taken_for_a_square_ring_nor_is_nothing():
    clips, _, known = MovingThings("test_seen").batch(range(24))
    assert not any(new_shape.judged(clip, spec)["shape"] for clip, spec in zip(clips, specs(24, seed=5)))
    empty = np.full((16, 64, 64, 3), 24, np.uint8)
    assert not new_shape.judged(empty, specs(1, seed=5)[0])["shape"]


class Copies:
    """A model that shows the same clip for every caption."""

    def __call__(self, captions, seed):
        clip = type("Clip", (), {"pixels": np.full((16, 64, 64, 3), 200, np.uint8)})
        return [clip] * len(captions)


def test_the_folder_holds_both_kinds_and_is_a_data_set(tmp_path):
    write(tmp_path, 3, 2, Copies())
    lines = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert [line["text"] for line in lines[:3]] == [said(spec) for spec in specs(3, 0)]
    assert all("square ring" in line["text"] for line in lines[:3]) and "square ring" not in str(lines[3:])
    data = find_data(tmp_path)
    assert len(data.open("train", 16, 64, 64)) == 4 and set(data.words()) <= set(find_data("moving-things").words())


@pytest.mark.parametrize("share, expected", [([True] * 8, 100.0), ([True, False] * 4, 50.0)])
def test_shares_are_in_percent_with_an_interval(share, expected):
    row = new_shape.counted([dict.fromkeys(new_shape.ATTRIBUTES, right) for right in share])
    assert all(value == expected and 0 <= low <= value <= high <= 100 for value, low, high in row.values())
    assert "8 clips each" in new_shape.table({"n": 8, "rows": {"a": row}})
