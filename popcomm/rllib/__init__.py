"""How populations learn: RLlib's new API stack on tensors. The only folder that imports ray.rllib."""

from popcomm.loading import uncollected

with uncollected():
    from popcomm.rllib.algorithm import PopulationPPO
    from popcomm.rllib.config import PopulationPPOConfig

__all__ = ["PopulationPPO", "PopulationPPOConfig"]
