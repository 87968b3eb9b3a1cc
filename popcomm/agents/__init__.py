"""Who acts: plain torch networks for P members at once, and the layers that they are made of."""

from popcomm.agents.block_sparse import BlockSparseLinear
from popcomm.agents.bottom_up import BottomUpNetwork
from popcomm.agents.commnet import CommNetAgent
from popcomm.agents.contract import Agent, AgentOutput, AgentSpec, AuxiliaryBatch
from popcomm.agents.convolution import PictureEncoder, PopulationConv2d
from popcomm.agents.distributions import ActionDistribution, action_distribution
from popcomm.agents.flare import FlareAttention, FlareBlock
from popcomm.agents.flare_memory import FlareMemory
from popcomm.agents.flare_mixing import effective_rank, spectral_gap
from popcomm.agents.gru import GRUAgent
from popcomm.agents.heterogeneous import HeterogeneousAgent
from popcomm.agents.ic3net import IC3NetAgent
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
from popcomm.agents.routing import RoutedHearing
from popcomm.agents.speech import AutoregressiveSpeech
from popcomm.agents.symbolic import SymbolicAgent
from popcomm.agents.tarmac import TarMACAgent
from popcomm.agents.tiny import TinyAgent

AGENTS: dict[str, type] = {
    "symbolic": SymbolicAgent,
    "mlp": MLPAgent,
    "gru": GRUAgent,
    "tiny": TinyAgent,
    "bottom_up": BottomUpNetwork,
    "commnet": CommNetAgent,
    "ic3net": IC3NetAgent,
    "tarmac": TarMACAgent,
    "heterogeneous": HeterogeneousAgent,
}

__all__ = [
    "AGENTS",
    "ActionDistribution",
    "Agent",
    "AgentOutput",
    "AgentSpec",
    "AutoregressiveSpeech",
    "AuxiliaryBatch",
    "BlockSparseLinear",
    "BottomUpNetwork",
    "CommNetAgent",
    "FlareAttention",
    "FlareBlock",
    "FlareMemory",
    "GRUAgent",
    "HeterogeneousAgent",
    "IC3NetAgent",
    "MLPAgent",
    "MessageEncoder",
    "PictureEncoder",
    "PopulationConv2d",
    "PopulationEmbedding",
    "PopulationGRUCell",
    "PopulationLSTMCell",
    "PopulationLayerNorm",
    "PopulationLinear",
    "PopulationMLP",
    "RoutedHearing",
    "SymbolicAgent",
    "TarMACAgent",
    "TinyAgent",
    "action_distribution",
    "effective_rank",
    "extract",
    "insert",
    "spectral_gap",
]
