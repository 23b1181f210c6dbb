"""What was allocated: one AllocTRES text becomes CPUs, nodes, memory and cards by model, each card counted once."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from metering.clusters import CardGres, Cluster
from metering.collectors.tres import GresRules, TresError, gres_rules, memory_bytes, read_alloc_tres

AI = Cluster(
    name="ai1",
    cards=(CardGres(gres="gpu"), CardGres(gres="dcu", model="k100")),
    card_models={"k100-pcie-64gb-ls": "k100", "NVIDIA_A100": "a100"},
    ignored_gres=("craynetwork",),
)


def rules(cluster: Cluster = AI, day: date = date(2026, 11, 1)) -> GresRules:
    return gres_rules(cluster, day)


def cards(text: str) -> str:
    return read_alloc_tres(text, rules()).cards


def test_an_allocation_states_cpus_nodes_and_memory() -> None:
    held = read_alloc_tres("billing=64,cpu=64,mem=62.50G,node=8", rules())
    assert (held.cpus, held.nodes, held.memory_bytes, held.cards) == (64, 8, 67_108_864_000, "")


def test_what_an_allocation_does_not_state_is_unknown_not_zero() -> None:
    held = read_alloc_tres("", rules())
    assert (held.cpus, held.nodes, held.memory_bytes, held.cards) == (None, None, None, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gres/gpu:a100=2,gres/gpu=2", "a100:2000"),  # the same two cards, not four
        ("gres/gpu=2,gres/gpu:a100=2", "a100:2000"),
        ("gres/gpu=2", "unknown:2000"),
        ("gres/gpu:a100=2", "a100:2000"),
        ("gres/gpu:a100=1,gres/gpu:v100=2,gres/gpu=3", "a100:1000;v100:2000"),
        ("gres/gpu:a100=1,gres/gpu:v100=2", "a100:1000;v100:2000"),  # not only the first
        ("gres/gpu:a100=1,gres/gpu=3", "a100:1000;unknown:2000"),  # an untyped rest
        ("gres/gpu:NVIDIA_A100=1", "a100:1000"),
        ("gres/gpu:H20=8", "h20:8000"),  # a type nobody mapped keeps its name
        ("gres/gpu:a100_1g.5gb=1", "a100_1g.5gb:1000"),
        ("gres/gpu=0.5", "unknown:500"),
        ("gres/dcu=1", "k100:1000"),
        ("dcu:4", "k100:4000"),
        ("gres:dcu:4", "k100:4000"),
        ("dcu:K100-PCIE-64GB-LS:2", "k100:2000"),
        ("gres/dcu:K100-PCIE-64GB-LS=2,gres/dcu=2", "k100:2000"),
        ("dcu:K100-PCIE-64GB-LS:2(IDX:0,3)", "k100:2000"),
        ("gres/gpu=1,gres/dcu=1", "k100:1000;unknown:1000"),
        ("gres/gpu=1,gres/gpumem=40G,gres/gpuutil=97", "unknown:1000"),  # measures of use, not cards
        ("gres/gpu=1,gres/craynetwork=4", "unknown:1000"),  # ignored on this cluster
        ("gres/fpga=0", ""),  # a gres that is not consumed
        ("license/ansys=2,bb/datawarp=2800G,energy=123,fs/disk=7", ""),
    ],
)
def test_each_card_is_counted_once_under_its_model(text: str, expected: str) -> None:
    assert cards(text) == expected


def test_adding_typed_and_total_would_double_the_cards() -> None:
    entries = ["gres/gpu:a100=2", "gres/gpu=2"]
    naive = sum(int(entry.rpartition("=")[2]) * 1000 for entry in entries)
    assert naive == 2 * int(cards(",".join(entries)).rpartition(":")[2])


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("gres/gpu:a100=3,gres/gpu=2", "cards_contradict", "gpu"),
        ("cpu=4,gres/shard=2", "unknown_gres", "'shard'"),  # a share of a card is nobody's default
        ("gres/fpga=1", "unknown_gres", "ignored_gres"),
        ("gres/gpux=1", "unknown_gres", "'gpux'"),  # the name counts whole
        ("cpu=4,cpu=8", "bad_tres", "twice"),
        ("cpu=-4", "bad_tres", "cpu=-4"),
        ("gres/gpu=two", "bad_tres", "two"),
        ("gres/gpu=0.0001", "bad_tres", "gpu"),
        ("gres/gpu:a;100=2", "bad_tres", "model"),
        ("mem=lots", "bad_tres", "62.50G"),
        ("dcu", "bad_tres", "amount"),
    ],
)
def test_an_allocation_that_contradicts_itself_is_refused_by_name(text: str, code: str, said: str) -> None:
    with pytest.raises(TresError, match=said) as refused:
        read_alloc_tres(text, rules())
    assert refused.value.code == code


def test_cards_count_by_the_rules_of_the_day() -> None:
    cluster = Cluster(
        name="ai1",
        cards=(
            CardGres(gres="mlu", model="mlu370", effective_from=date(2026, 11, 10)),
            CardGres(gres="mlu", model="mlu590", effective_from=date(2026, 11, 20)),
        ),
    )
    assert read_alloc_tres("gres/mlu=1", rules(cluster, date(2026, 11, 10))).cards == "mlu370:1000"
    assert read_alloc_tres("gres/mlu=1", rules(cluster, date(2026, 11, 21))).cards == "mlu590:1000"
    with pytest.raises(TresError, match="mlu"):
        read_alloc_tres("gres/mlu=1", rules(cluster, date(2026, 11, 9)))


def test_a_unit_of_a_gres_may_be_part_of_a_card() -> None:
    cluster = Cluster(name="ai1", cards=(CardGres(gres="shard", model="a100", thousandths=250),))
    assert read_alloc_tres("gres/shard=3", rules(cluster)).cards == "a100:750"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8000M", 8_388_608_000),
        ("62.50G", 67_108_864_000),
        ("1.5K", 1536),
        ("2T", 2 * 1024**4),
        ("3P", 3 * 1024**5),
        ("100", 104_857_600),
        ("0", 0),
    ],
)
def test_memory_is_exact_to_the_byte(text: str, expected: int) -> None:
    assert memory_bytes(text) == expected


@pytest.mark.shared
def test_cards_agree_with_what_xdmod_counts(shared_data: Path) -> None:
    cases = json.loads((shared_data / "xdmod/unit-fixtures/slurm/alloc-tres-gpu-count.json").read_text())
    assert len(cases) == 9
    for text, expected in cases:
        counted = sum(int(part.rpartition(":")[2]) for part in cards(text).split(";") if part)
        assert counted == expected * 1000, text
