"""The influenza outbreak of 1978 in an English boarding school."""

import numpy as np

from .population import Population

_BOYS = 763
_IN_BED = (3, 8, 26, 76, 225, 298, 258, 233, 189, 128, 68, 29, 14, 4)
_CONVALESCENT = (0, 0, 0, 0, 9, 17, 105, 162, 176, 166, 150, 85, 47, 20)


def load_school_influenza() -> Population:
    """Boys in bed on the fourteen days of the outbreak, among the 763 of the school.

    Returns
    -------
    Population
        One trajectory, times 0 to 13 in days (day 0 is 1978-01-22), states S, I and R, counts (1, 14, 3) of which only I (in bed)
        is observed, totals of 763. The boys in bed on a day are those who are ill on it (prevalence), not those who fall ill on
        it.

        The series of convalescent boys stands in `provenance["convalescent"]` and is not observed as R: convalescent are those
        still on the way back to class, who leave that count when they are well, while the removed compartment R keeps everyone
        who had the disease.

    References
    ----------
    Anonymous (1978). Influenza in a boarding school. British Medical Journal 1, 587 (4 March 1978).
    """
    counts = np.zeros((1, len(_IN_BED), 3), np.int64)
    counts[0, :, 1] = _IN_BED
    return Population(
        times=np.arange(len(_IN_BED)),
        counts=counts,
        totals=_BOYS,
        states=("S", "I", "R"),
        trajectories=("school 1978",),
        mask=np.array([False, True, False]),
        time_unit="day",
        provenance={
            "title": "Influenza in a boarding school, England, January and February 1978",
            "source": "British Medical Journal, 4 March 1978, p. 587",
            "first_day": "1978-01-22",
            "population": f"{_BOYS} boys",
            "observed": "I: boys in bed on the day (prevalence, not new cases)",
            "convalescent": list(_CONVALESCENT),
            "convalescent_note": "not used as R: boys are counted only while they recover, whereas the removed never fall",
        },
    )
