"""Who acts: plain torch networks for P members at once, and the layers that they are made of."""

from popcomm.agents.contract import Agent, AgentOutput, AgentSpec, AuxiliaryBatch
from popcomm.agents.distributions import ActionLaw, action_law
from popcomm.agents.message_encoder import MessageEncoder
from popcomm.agents.mlp import MLPAgent
from popcomm.agents.population import (
    PopulationEmbedding,
    PopulationGRUCell,
    PopulationLayerNorm,
    PopulationLinear,
    PopulationLSTMCell,
    PopulationMLP,
    extract,
    insert,
)
from popcomm.agents.symbolic import SymbolicAgent

AGENTS: dict[str, type] = {"symbolic": SymbolicAgent, "mlp": MLPAgent}

__all__ = [
    "AGENTS",
    "ActionLaw",
    "Agent",
    "AgentOutput",
    "AgentSpec",
    "AuxiliaryBatch",
    "MLPAgent",
    "MessageEncoder",
    "PopulationEmbedding",
    "PopulationGRUCell",
    "PopulationLSTMCell",
    "PopulationLayerNorm",
    "PopulationLinear",
    "PopulationMLP",
    "SymbolicAgent",
    "action_law",
    "extract",
    "insert",
]
