"""The judge of a soak says no where it must: python -m unittest, or pytest."""
from __future__ import annotations

import pathlib
import random
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import judge  # noqa: E402
from judge import Ledger, Sample  # noqa: E402
from timeline import Timeline  # noqa: E402

MIB = 1 << 20


def series(minutes: float, leak_mib_per_hour: float = 0.0, spikes: bool = True, seed: int = 0) -> list[Sample]:
    """A sample a second: 200 MiB, noise of 5 MiB, a spike of up to 150 MiB every few seconds."""
    chance = random.Random(seed)
    samples = []
    for second in range(int(minutes * 60)):
        extra = chance.randrange(150 * MIB) if spikes and chance.random() < 0.4 else 0
        floor = 200 * MIB + leak_mib_per_hour * MIB * second / 3600
        samples.append(Sample(second, int(floor + chance.gauss(0, 5 * MIB)) + extra, 20, 15))
    return samples


class Memory(unittest.TestCase):
    def test_spikes_are_no_growth(self):
        for seed in range(20):
            self.assertEqual(judge.grown(series(10, seed=seed)), [])

    def test_a_leak_below_spikes_is_found(self):
        for seed in range(20):
            problems = judge.grown(series(10, leak_mib_per_hour=400, seed=seed))
            self.assertEqual(len(problems), 1, seed)
            self.assertIn("MiB/h", problems[0])

    def test_the_slope_is_the_leak(self):
        for leak in (200, 400, 1200):
            found = judge.memory(series(10, leak_mib_per_hour=leak)).slope_mib_per_hour
            self.assertAlmostEqual(found, leak, delta=50)

    def test_what_is_taken_in_the_first_half_is_no_growth(self):
        samples = series(10, spikes=False)
        for sample in samples[: len(samples) // 2]:
            sample.resident_bytes -= 100 * MIB
        self.assertEqual(judge.grown(samples), [])

    def test_one_step_late_in_the_second_half_is_an_outlier_and_two_thirds_of_it_are_not(self):
        late, early = series(10, spikes=False), series(10, spikes=False)
        for samples, last in ((late, 30), (early, 150)):
            for sample in samples[-last:]:
                sample.resident_bytes += 50 * MIB
        self.assertEqual(judge.grown(late), [])
        self.assertNotEqual(judge.grown(early), [])

    def test_too_short_a_soak_says_so(self):
        self.assertIn("says nothing", judge.grown(series(0.1))[0])
        self.assertIn("says nothing", judge.grown([])[0])


class Counts(unittest.TestCase):
    def test_each_request_is_counted_once(self):
        ledger = Ledger()
        ledger.sent.update({"/a": 10, "/b": 5})
        ledger.left.update({"/b": 2})
        self.assertEqual(judge.miscounted({"/a": 10, "/b": 5}, ledger), [])
        self.assertEqual(judge.miscounted({"/a": 10, "/b": 3}, ledger), [])
        for wrong in ({"/a": 9, "/b": 5}, {"/a": 11, "/b": 5}, {"/a": 10, "/b": 2}, {"/a": 10, "/b": 6}, {"/a": 10}):
            self.assertEqual(len(judge.miscounted(wrong, ledger)), 1, wrong)
        self.assertEqual(len(judge.miscounted({"/a": 10, "/b": 5, "/c": 1}, ledger)), 1, "nobody asked for /c")

    def test_gauges_come_back(self):
        self.assertEqual(judge.still_held({"in flight": 0, "uploads": 0}), [])
        self.assertEqual(judge.still_held({"in flight": 0, "uploads": 4096}), ["uploads is 4096 after the load"])
        self.assertEqual(judge.still_connected([]), [])
        self.assertEqual(judge.still_connected(["http from 9 CLOSE_WAIT"]), ["still connected: http from 9 CLOSE_WAIT"])

    def test_threads_and_descriptors_go_with_the_load(self):
        before = Sample(0, 0, 20, 15)
        self.assertEqual(judge.left_over(before, Sample(9, 0, 19, 15)), [])
        self.assertEqual(len(judge.left_over(before, Sample(9, 0, 21, 15))), 1)
        self.assertEqual(len(judge.left_over(before, Sample(9, 0, 21, 16))), 2)


class Answers(unittest.TestCase):
    def test_class_and_score_must_be_right(self):
        right = ("cat", 0.9)
        self.assertTrue(judge.same_answer(("cat", 0.90005), right))
        for wrong in (("dog", 0.9), ("cat", 0.9002), ("cat", 0.8998), ("cat", float("nan"))):
            self.assertFalse(judge.same_answer(wrong, right), wrong)

    def test_one_failure_is_enough(self):
        ledger = Ledger()
        self.assertEqual(judge.unanswered(ledger), [])
        ledger.failed("lost", "POST /a: the connection ended")
        self.assertEqual(judge.unanswered(ledger), ["1 lost: POST /a: the connection ended"])

    def test_a_soak_that_met_no_fault_has_shown_nothing(self):
        ledger = Ledger()
        ledger.outcomes["503"] += 1
        self.assertEqual(judge.never_tried(ledger, ["503", "reload"]), ["reload never happened"])

    def test_the_end_is_judged(self):
        self.assertEqual(judge.badly_ended(0, 1.0), [])
        self.assertEqual(len(judge.badly_ended(-9, 1.0)), 1)
        self.assertEqual(len(judge.badly_ended(1, 30.0)), 2)
        self.assertEqual(judge.loud([]), [])
        self.assertEqual(len(judge.loud([{"level": "ERROR"}])), 1)


class Times(unittest.TestCase):
    def test_an_answer_may_be_of_any_state_that_there_was_while_it_was_under_way(self):
        states = Timeline("old", at=0.0)
        states.changing("new", at=10.0)
        states.settled("new", at=12.0)
        self.assertEqual(states.possible(1.0, 9.0), {"old"})
        self.assertEqual(states.possible(9.0, 10.5), {"old", "new"})
        self.assertEqual(states.possible(10.5, 11.0), {"old", "new"})
        self.assertEqual(states.possible(11.0, 13.0), {"old", "new"})
        self.assertEqual(states.possible(12.5, 13.0), {"new"})


if __name__ == "__main__":
    unittest.main()
