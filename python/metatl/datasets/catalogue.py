"""The public data sets that `metatl data download` knows.

The addresses are those that the publishers give. A SHA-256 is given where a third party has published it:
TensorFlow Datasets (`url_checksums/movielens.txt`) for the archives of GroupLens, OmniRec (ISG Siegen, the
loader of Amazon 2014) for the ratings of Amazon. X-Wines and Yelp are not in the list: X-Wines is in a shared
drive without a lasting address (its slim version is bundled), and Yelp asks users to fill in a form.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit


@dataclass(frozen=True)
class PublicDataSet:
    """A data set that others publish.

    Attributes
    ----------
    name : str
        The name that commands use; also the name of the folder.
    title : str
        A short description.
    homepage : str
        The page of the publisher.
    urls : tuple of str
        The addresses of the file, all https; they are tried in this order.
    licence : str
        A summary of what the publisher allows. The terms of the publisher apply.
    citation : str
        The publications to cite.
    max_bytes : int
        The largest size of the download, in bytes.
    sha256 : str or None
        SHA-256 of the download in hexadecimal; None where none is published.
    member : str or None
        The member of a zip archive that holds the interactions; None where the download is the data itself.
        An archive has a published SHA-256.
    """

    name: str
    title: str
    homepage: str
    urls: tuple[str, ...]
    licence: str
    citation: str
    max_bytes: int
    sha256: str | None = None
    member: str | None = None

    @property
    def file_name(self) -> str:
        """Name of the downloaded file."""
        return PurePosixPath(urlsplit(self.urls[0]).path).name

    @property
    def data_name(self) -> str:
        """Name of the file that holds the interactions."""
        return self.file_name if self.member is None else PurePosixPath(self.member).name


_MB = 1_000_000
_GB = 1_000_000_000

_AMAZON_PAGE = "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html"
_AMAZON_FILES = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_AMAZON_LICENCE = (
    "No licence is stated. The publishers offer the ratings to researchers and ask to be cited; the reviews "
    "were written by Amazon's customers. Use it for research, and do not pass it on."
)
_AMAZON_CITATION = (
    "R. He, J. McAuley. Ups and Downs: Modeling the Visual Evolution of Fashion Trends with One-Class "
    "Collaborative Filtering. WWW 2016. / J. McAuley, C. Targett, Q. Shi, A. van den Hengel. Image-based "
    "Recommendations on Styles and Substitutes. SIGIR 2015."
)
_GOODREADS_PAGE = "https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html"
_MOVIELENS_FILES = "https://files.grouplens.org/datasets/movielens"
_MOVIELENS_LICENCE = (
    "For research. Commercial use needs the permission of GroupLens, University of Minnesota; publications "
    "must cite it and may not suggest an endorsement. Whether it may be passed on is said in the README "
    "inside the archive."
)
_MOVIELENS_CITATION = (
    "F. M. Harper, J. A. Konstan. The MovieLens Datasets: History and Context. ACM Transactions on "
    "Interactive Intelligent Systems 5(4), 2015, 19. doi:10.1145/2827872"
)

_PUBLIC_DATA_SETS = (
    PublicDataSet(
        name="electronics",
        title="Amazon 2014, Electronics: ratings only",
        homepage=_AMAZON_PAGE,
        urls=(f"{_AMAZON_FILES}/ratings_Electronics.csv",),
        licence=_AMAZON_LICENCE,
        citation=_AMAZON_CITATION,
        max_bytes=500 * _MB,
        sha256="a8e5b66b7f5371d1659ff88ae4acec91604125d6850f4f7e1c418120f2f9c16c",
    ),
    PublicDataSet(
        name="goodreads",
        title="Goodreads, UCSD Book Graph: all interactions",
        homepage=_GOODREADS_PAGE,
        urls=(
            "https://mcauleylab.ucsd.edu/public_datasets/gdrive/goodreads/goodreads_interactions_dedup.json.gz",
            "https://datarepo.eng.ucsd.edu/mcauley_group/gdrive/goodreads/goodreads_interactions_dedup.json.gz",
        ),
        licence="For academic use only: not for commercial purposes, and not to be passed on.",
        citation=(
            "M. Wan, J. McAuley. Item Recommendation on Monotonic Behavior Chains. RecSys 2018. / M. Wan, "
            "R. Misra, N. Nakashole, J. McAuley. Fine-Grained Spoiler Detection from Large-Scale Review "
            "Corpora. ACL 2019."
        ),
        max_bytes=16 * _GB,
    ),
    PublicDataSet(
        name="ml-1m",
        title="MovieLens 1M",
        homepage="https://grouplens.org/datasets/movielens/1m/",
        urls=(f"{_MOVIELENS_FILES}/ml-1m.zip",),
        licence=_MOVIELENS_LICENCE,
        citation=_MOVIELENS_CITATION,
        max_bytes=10 * _MB,
        sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        member="ml-1m/ratings.dat",
    ),
    PublicDataSet(
        name="ml-20m",
        title="MovieLens 20M",
        homepage="https://grouplens.org/datasets/movielens/20m/",
        urls=(f"{_MOVIELENS_FILES}/ml-20m.zip",),
        licence=_MOVIELENS_LICENCE,
        citation=_MOVIELENS_CITATION,
        max_bytes=250 * _MB,
        sha256="96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
        member="ml-20m/ratings.csv",
    ),
    PublicDataSet(
        name="ml-25m",
        title="MovieLens 25M",
        homepage="https://grouplens.org/datasets/movielens/25m/",
        urls=(f"{_MOVIELENS_FILES}/ml-25m.zip",),
        licence=_MOVIELENS_LICENCE,
        citation=_MOVIELENS_CITATION,
        max_bytes=300 * _MB,
        sha256="8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
        member="ml-25m/ratings.csv",
    ),
    PublicDataSet(
        name="movies",
        title="Amazon 2014, Movies and TV: ratings only",
        homepage=_AMAZON_PAGE,
        urls=(f"{_AMAZON_FILES}/ratings_Movies_and_TV.csv",),
        licence=_AMAZON_LICENCE,
        citation=_AMAZON_CITATION,
        max_bytes=300 * _MB,
        sha256="05fd3bbb387bca99f16b7a64a26abb736429da416e3cc0cc7423483e9ec4c265",
    ),
    PublicDataSet(
        name="movietweetings",
        title="MovieTweetings, all ratings",
        homepage="https://github.com/sidooms/MovieTweetings",
        urls=("https://raw.githubusercontent.com/sidooms/MovieTweetings/master/latest/ratings.dat",),
        licence="MIT licence: free to use, change and pass on with its notice.",
        citation=(
            "S. Dooms, T. De Pessemier, L. Martens. MovieTweetings: a Movie Rating Dataset Collected From "
            "Twitter. CrowdRec at RecSys 2013."
        ),
        max_bytes=100 * _MB,
    ),
    PublicDataSet(
        name="sports",
        title="Amazon 2014, Sports and Outdoors: ratings only",
        homepage=_AMAZON_PAGE,
        urls=(f"{_AMAZON_FILES}/ratings_Sports_and_Outdoors.csv",),
        licence=_AMAZON_LICENCE,
        citation=_AMAZON_CITATION,
        max_bytes=250 * _MB,
        sha256="a31a27e2f0cd85b50acd002378cf1a23a0b3f2659484defb3225a836118252d4",
    ),
)

CATALOGUE = {data_set.name: data_set for data_set in _PUBLIC_DATA_SETS}
"""Every public data set by its name."""
