"""What a search would try, in which order; and what is refused before anything is compiled."""

from __future__ import annotations

import pytest

from var_jax.cli.main import main
from var_jax.errors import InputError
from var_jax.rehearsal.compile import too_large
from var_jax.rehearsal.quick import buffer_sizes
from var_jax.rehearsal.report import largest_batch
from var_jax.rehearsal.search import candidates, changed
from var_jax.rehearsal.topologies import Topology
from var_jax.training.config import load_config


def ordered(name, topology, *overrides):
    return candidates(load_config(name, overrides), Topology.parse(topology))


def test_what_divides_nowhere_is_no_candidate():
    found = ordered("var:d30", "v5p:4x4x4")
    assert found
    for one in found:
        mesh = {axis: one.changes[f"mesh.{axis}"] for axis in ("data", "fsdp", "tensor")}
        assert mesh["data"] * mesh["fsdp"] * mesh["tensor"] == 64
        assert 1920 % mesh["fsdp"] == 0
        assert 30 % mesh["tensor"] == 0
    assert not [one for one in ordered("var:d30", "v5e:16x16") if one.changes["mesh.fsdp"] == 256]


def test_two_billion_parameters_on_a_small_chip_are_split_first():
    first = ordered("var:d30", "v5e:8x8", "batch_size=128")[0]
    assert first.changes["mesh.fsdp"] > 1
    assert first.bytes < 16 * 2**30


def test_recomputing_everything_is_known_to_cost_a_third_more():
    found = ordered("var:d16", "v5p:2x2x2", "batch_size=64")
    least = {one.changes["remat"]: one.least_seconds for one in found}
    assert least["nothing_saveable"] == pytest.approx(4 / 3 * least[None])


def test_a_searchs_changes_leave_the_config_as_it_was():
    config = load_config("var:d16")
    new = changed(config, {"mesh.fsdp": 16, "remat": None})
    assert (new.mesh.fsdp, new.remat, config.mesh.fsdp, config.remat) == (16, None, 1, "nothing_saveable")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--topology", "v5p:5x5"], "v5p has 1x1x1, 2x2x1"),
        (["--topology", "v9:2x2"], "known chips are v4, v5e, v5p, v6e"),
        (["--topology", "v5e:2x2", "--batch", "0"], "expected 1 or more"),
    ],
)
def test_what_is_refused_at_once(arguments, said, capsys):
    assert main(["rehearse", "--config", "var:d16", *arguments]) == 2
    assert said in capsys.readouterr().err


class Line:
    """A program whose memory is a line in its batch."""

    def __init__(self, rows, slope, capacity=1000):
        self.memory = self
        self.rows, self.peak, self.capacity = rows, 100 + slope * rows, capacity
        self.fits = self.peak <= capacity


@pytest.mark.parametrize(("slope", "largest"), [(90, 10), (1, 900), (450, 2)])
def test_the_largest_batch_is_found_in_few_steps(slope, largest):
    said = []
    found = largest_batch(lambda batch: Line(batch, slope), 1, said.append)
    assert largest * 0.95 <= found.rows <= largest
    assert len(said) <= 6


@pytest.mark.parametrize("leap", [70, 300, 860])
def test_a_leap_in_memory_costs_few_steps_more(leap):
    """As where the compiler chooses another layout from some size on: no line leads to it."""

    class Leaps(Line):
        def __init__(self, rows):
            super().__init__(rows, 1, 1000 if rows <= leap else 50)

    said = []
    found = largest_batch(Leaps, 1, said.append)
    assert leap * 0.95 <= found.rows <= leap
    assert len(said) <= 12


def test_a_picture_that_is_too_much_is_the_answer():
    assert not largest_batch(lambda batch: Line(batch, 5000), 1, lambda line: None).fits


MESSAGE = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. \
Used 23.09G of 15.75G hbm. Exceeded hbm capacity by 7.34G.
"""


def test_the_compilers_complaint_about_memory_is_read():
    found = too_large(MESSAGE)
    assert (found.peak, found.capacity, found.fits) == (round(23.09 * 2**30), round(15.75 * 2**30), False)
    early = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (16.78G) exceeds "
    )
    found = too_large(early + "available HBM (15.75G).")
    assert (found.peak, found.capacity, found.fits) == (round(16.78 * 2**30), round(15.75 * 2**30), False)
    assert too_large("INTERNAL: something else") is None


BUFFERS = """BufferAssignment:
allocation 0: size 512, thread-local:
 value: <2 reduce_max.2 @0> (size=512,offset=0): f32[]{:T(128)}
allocation 1: size 4096, parameter 0, shape |f32[1024]| at ShapeIndex {}, maybe-live-out:
 value: <157 param @0> (size=4096,offset=0): f32[1024]{0:T(1024)}
allocation 2: size 2048, parameter 1, shape |bf16[1024]| at ShapeIndex {}:
 value: <158 param.1 @0> (size=2048,offset=0): bf16[1024]{0:T(1024)}
allocation 3: size 1024, maybe-live-out:
 value: <187 pad.2 @0> (size=1024,offset=0): bf16[512]{0:T(1024)}
allocation 4: size 65536, color 1, preallocated-temp:
 value: <1 near @0> (size=65536,offset=0): f32[16384]{0:T(1024)S(1)}
allocation 5: size 512, constant:
 value: <181 constant.11.clone @0> (size=512,offset=0): f32[]{:T(128)}
allocation 6: size 8192, preallocated-temp:
 value: <160 fusion.58 @0> (size=8192,offset=0): f32[2048]{0:T(1024)}
"""


def test_a_list_of_buffers_is_summed_by_kind():
    assert buffer_sizes(BUFFERS) == {"arguments": 4096 + 2048, "outputs": 1024, "temporaries": 8192 + 512}


def test_a_batch_belongs_to_what_has_one():
    from var_jax.rehearsal.command import rehearse

    topology = Topology.parse("v5e:2x2")
    for name, what, options, said in (
        ("var:d16", "train", {"batch": 4}, "--config.batch_size"),
        ("var:d16", "tokenizer", {}, "needs a tokenizer's"),
        ("shapes_tokenizer", "sample", {}, "needs a transformer's"),
        ("var:d16", "sample", {"most": 3}, "is for training"),
    ):
        with pytest.raises(InputError, match=said):
            rehearse(name, [], topology, what, **options)
