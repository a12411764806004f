"""The returns of a random player and of a human on Atari games, between which human-normalised scores are measured.

Source: Mnih et al. 2015, Human-level control through deep reinforcement learning, extended data table 2,
https://doi.org/10.1038/nature14236; 49 games, no-op starts.
"""

from __future__ import annotations

from gsprune.rl.evaluation.scores import ScoreRange

__all__ = ["HUMAN_SCORES"]

HUMAN_SCORES: dict[str, ScoreRange] = {
    "Alien": ScoreRange(227.8, 6875),
    "Amidar": ScoreRange(5.8, 1676),
    "Assault": ScoreRange(222.4, 1496),
    "Asterix": ScoreRange(210, 8503),
    "Asteroids": ScoreRange(719.1, 13157),
    "Atlantis": ScoreRange(12850, 29028),
    "BankHeist": ScoreRange(14.2, 734.4),
    "BattleZone": ScoreRange(2360, 37800),
    "BeamRider": ScoreRange(363.9, 5775),
    "Bowling": ScoreRange(23.1, 154.8),
    "Boxing": ScoreRange(0.1, 4.3),
    "Breakout": ScoreRange(1.7, 31.8),
    "Centipede": ScoreRange(2091, 11963),
    "ChopperCommand": ScoreRange(811, 9882),
    "CrazyClimber": ScoreRange(10781, 35411),
    "DemonAttack": ScoreRange(152.1, 3401),
    "DoubleDunk": ScoreRange(-18.6, -15.5),
    "Enduro": ScoreRange(0, 309.6),
    "FishingDerby": ScoreRange(-91.7, 5.5),
    "Freeway": ScoreRange(0, 29.6),
    "Frostbite": ScoreRange(65.2, 4335),
    "Gopher": ScoreRange(257.6, 2321),
    "Gravitar": ScoreRange(173, 2672),
    "Hero": ScoreRange(1027, 25763),
    "IceHockey": ScoreRange(-11.2, 0.9),
    "Jamesbond": ScoreRange(29, 406.7),
    "Kangaroo": ScoreRange(52, 3035),
    "Krull": ScoreRange(1598, 2395),
    "KungFuMaster": ScoreRange(258.5, 22736),
    "MontezumaRevenge": ScoreRange(0, 4367),
    "MsPacman": ScoreRange(307.3, 15693),
    "NameThisGame": ScoreRange(2292, 4076),
    "Pong": ScoreRange(-20.7, 9.3),
    "PrivateEye": ScoreRange(24.9, 69571),
    "Qbert": ScoreRange(163.9, 13455),
    "Riverraid": ScoreRange(1339, 13513),
    "RoadRunner": ScoreRange(11.5, 7845),
    "Robotank": ScoreRange(2.2, 11.9),
    "Seaquest": ScoreRange(68.4, 20182),
    "SpaceInvaders": ScoreRange(148, 1652),
    "StarGunner": ScoreRange(664, 10250),
    "Tennis": ScoreRange(-23.8, -8.9),
    "TimePilot": ScoreRange(3568, 5925),
    "Tutankham": ScoreRange(11.4, 167.6),
    "UpNDown": ScoreRange(533.4, 9082),
    "Venture": ScoreRange(0, 1188),
    "VideoPinball": ScoreRange(16257, 17298),
    "WizardOfWor": ScoreRange(563.5, 4757),
    "Zaxxon": ScoreRange(32.5, 9173),
}
"""``HUMAN_SCORES[game]``: the random player's return is 0 and the human's 1; games are named as in their ids."""
