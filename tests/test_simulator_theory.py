"""The simulator against queueing theory, within sampling error. Formulas: any textbook on queues, such as
Kleinrock, Queueing Systems, volume 1.
"""

from __future__ import annotations

from math import exp

import pytest
import simulator_checks as checks


@pytest.mark.parametrize(
    ("servers", "utilisation", "slots", "replicas"),
    [(1, 0.6, 1, 1), (3, 0.7, 3, 1), (2, 0.7, 1, 2), (8, 0.8, 4, 2)],
)
def test_m_m_c_waits_as_erlang_says(servers: int, utilisation: float, slots: int, replicas: int) -> None:
    checks.markovian(servers, utilisation, slots=slots, replicas=replicas)


def test_m_d_1_waits_half_as_long_as_m_m_1() -> None:
    checks.general({"distribution": "fixed", "mean": checks.MEAN_TOKENS}, 1.0)


def test_m_g_1_waits_as_pollaczek_and_khinchine_say() -> None:
    sigma = 0.8
    checks.general({"distribution": "lognormal", "mean": checks.MEAN_TOKENS, "sigma": sigma}, exp(sigma**2))


def test_uniform_lengths_wait_in_between() -> None:
    checks.general({"distribution": "uniform", "mean": checks.MEAN_TOKENS}, 4 / 3)


def test_first_come_first_served() -> None:
    checks.first_come_first_served()


def test_a_decision_comes_a_window_after_its_threshold_and_a_replica_a_start_up_later() -> None:
    checks.window_and_start_up()


def test_a_window_passes_while_nothing_changes() -> None:
    checks.a_quiet_window()


def test_a_dip_begins_the_window_anew() -> None:
    checks.a_dip_begins_the_window_anew()
