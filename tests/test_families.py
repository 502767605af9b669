"""Every family of encoders keeps the contract that third parties test their own by."""

from __future__ import annotations

from typing import Any

from transformers import (
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from edgeprune.encoder import FAMILIES
from edgeprune.testing import FamilyContract

TINY: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}


class TestBert(FamilyContract):
    @classmethod
    def config(cls) -> PretrainedConfig:
        return BertConfig(**TINY, hidden_act="relu", layer_norm_eps=1e-2)


class TestRoberta(FamilyContract):
    @classmethod
    def config(cls) -> PretrainedConfig:
        return RobertaConfig(**TINY, type_vocab_size=1)


class TestXlmRoberta(FamilyContract):
    @classmethod
    def config(cls) -> PretrainedConfig:
        return XLMRobertaConfig(**TINY, type_vocab_size=1, hidden_act="gelu_new")


class TestElectra(FamilyContract):
    @classmethod
    def config(cls) -> PretrainedConfig:
        return ElectraConfig(**TINY, embedding_size=16)


class TestDistilBert(FamilyContract):
    @classmethod
    def config(cls) -> PretrainedConfig:
        return DistilBertConfig(
            vocab_size=60,
            dim=32,
            n_heads=4,
            n_layers=3,
            hidden_dim=48,
            max_position_embeddings=40,
            sinusoidal_pos_embds=True,
        )


class TestMpnet(FamilyContract):
    @classmethod
    def config(cls) -> PretrainedConfig:
        return MPNetConfig(**TINY)


def test_every_family_is_held_to_the_contract() -> None:
    held = {contract.config().model_type for contract in FamilyContract.__subclasses__()}
    assert held == set(FAMILIES)
