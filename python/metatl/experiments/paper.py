"""The figures that the paper reports, as data.

Source: Wang, Ding and Caverlee, *Sequential Recommendation for Cold-start Users with Meta Transitional
Learning*, SIGIR 2021, arXiv 2107.06427: Table 1 (data sets), Table 2 (all systems, K = 3) and Figure 2 (four
systems over K). Figure 2 prints no numbers, so only its systems, data sets and values of K are here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

SOURCE = (
    "Wang, Ding and Caverlee, Sequential Recommendation for Cold-start Users with Meta Transitional "
    "Learning, SIGIR 2021 (arXiv 2107.06427)"
)


@dataclass(frozen=True)
class PublishedStatistics:
    """A row of Table 1.

    Attributes
    ----------
    column : str
        Name of the data set in the paper.
    users, items : int
        After items with fewer than 10 interactions are dropped.
    mean_length : float
        Interactions per user.
    cutoff : date
        T: users whose first interaction is at or after it are test users.
    """

    column: str
    users: int
    items: int
    mean_length: float
    cutoff: date


@dataclass(frozen=True)
class PublishedScore:
    """A cell of Table 2: one system on one data set, the target among 100 random negatives.

    Attributes
    ----------
    hit_rate : float
        Hit@1.
    mrr : float
        MRR.
    """

    hit_rate: float
    mrr: float


@dataclass(frozen=True)
class PublishedFigure:
    """A plot of MRR over K, with a line for each system and a panel for each data set."""

    columns: tuple[str, ...]
    systems: tuple[str, ...]
    ks: tuple[int, ...]


TABLE_1 = {
    row.column: row
    for row in (
        PublishedStatistics("Electronics", 22_685, 20_712, 15.26, date(2014, 1, 1)),
        PublishedStatistics("Movie", 26_933, 18_855, 28.97, date(2014, 1, 1)),
        PublishedStatistics("Book", 90_892, 58_250, 27.81, date(2017, 1, 1)),
    )
}

TABLE_2_K = 3
TABLE_2 = {
    system: {
        column: PublishedScore(hit_rate, mrr) for column, (hit_rate, mrr) in zip(TABLE_1, scores, strict=True)
    }
    for system, scores in (
        ("BPR-MF", ((0.066, 0.123), (0.025, 0.083), (0.043, 0.098))),
        ("TransRec", ((0.183, 0.296), (0.208, 0.321), (0.335, 0.454))),
        ("GRU4Rec", ((0.185, 0.301), (0.189, 0.309), (0.330, 0.466))),
        ("TCN", ((0.182, 0.303), (0.186, 0.314), (0.349, 0.489))),
        ("SASRec", ((0.193, 0.318), (0.211, 0.345), (0.347, 0.488))),
        ("BERT4Rec", ((0.200, 0.323), (0.220, 0.351), (0.369, 0.513))),
        ("MeLU", ((0.172, 0.265), (0.168, 0.289), (0.318, 0.423))),
        ("MetaCF", ((0.210, 0.330), (0.234, 0.365), (0.398, 0.528))),
        ("MetaTL", ((0.224, 0.352), (0.258, 0.380), (0.420, 0.555))),
    )
}

FIGURE_2 = PublishedFigure(
    columns=("Movie", "Book"), systems=("BERT4Rec", "MetaTL−−", "MetaCF", "MetaTL"), ks=(2, 3, 4)
)

COLUMNS = {"electronics": "Electronics", "movies": "Movie", "goodreads": "Book"}
"""Names that commands give the paper's data sets, and their names in the paper."""
