"""Requests and answers of the service: what JSON they are, for the checks and for the OpenAPI description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ItemId = int | str
Strict = ConfigDict(extra="forbid", strict=True)


class RecommendRequest(BaseModel):
    """Histories of users, and what may be recommended to them."""

    model_config = Strict

    history: list[ItemId] | None = Field(default=None, description="The items of one user, oldest first.")
    histories: list[list[ItemId]] | None = Field(default=None, description="The items of each user.")
    top: int = Field(default=10, ge=1, description="Items per user.")
    exclude: list[ItemId] | list[list[ItemId]] | None = Field(
        default=None, description="Items that nobody gets, or a list for each user."
    )
    allow: list[ItemId] | list[list[ItemId]] | None = Field(
        default=None, description="The only items that anyone gets, or a list for each user."
    )
    where: dict[str, Any] | None = Field(
        default=None, description="Values, or lists of values, by column of the item table."
    )
    include_history: bool = Field(default=False, description="Whether items of the history may come again.")
    inner_step: bool = Field(default=True, description="Whether MetaTL's inner step adapts to the history.")


class RecommendedItem(BaseModel):
    """An item and its score; higher is better, and scores compare within one user only."""

    item_id: ItemId
    score: float
    item: dict[str, Any] | None = Field(default=None, description="Its row of the item table.")


class UserAnswer(BaseModel):
    """The items of one user, best first."""

    items: list[RecommendedItem]
    basis: str = Field(description="`history`, or `popularity` for a user without a known item.")
    unknown_items: list[str] = Field(description="Ids of the history that the run does not know.")


class RecommendAnswer(BaseModel):
    """An answer for each user."""

    users: list[UserAnswer]


class SimilarRequest(BaseModel):
    """Items whose most similar items are wanted."""

    model_config = Strict

    ids: list[ItemId] = Field(description="Item ids.")
    top: int = Field(default=10, ge=1, description="Items per id.")


class SimilarAnswer(BaseModel):
    """The most similar items of each id; none for an unknown id."""

    items: list[list[RecommendedItem]]


class ExplainRequest(BaseModel):
    """A history, and the item whose score is to be explained."""

    model_config = Strict

    history: list[ItemId] = Field(description="The items of one user, oldest first.")
    item: ItemId = Field(description="The item.")


class ItemPart(BaseModel):
    """What an item of the history adds to the score."""

    item_id: ItemId
    share: float


class TransitionPart(BaseModel):
    """What the transition from one item to the next adds to the score."""

    from_item_id: ItemId
    to_item_id: ItemId
    share: float


class ExplainAnswer(BaseModel):
    """The parts of the score; they add up to it."""

    item_id: ItemId
    score: float
    items: list[ItemPart]
    transitions: list[TransitionPart]
    adaptation: float = Field(description="What the inner step adds.")
    base: float = Field(description="The rest: what the item has for an average history.")


class ItemsAnswer(BaseModel):
    """Items that match a query, the most popular first."""

    items: list[dict[str, Any]]
    total: int = Field(description="How many items match.")


class ColumnsAnswer(BaseModel):
    """Columns of the item table with few different texts, and these texts."""

    columns: dict[str, list[str]]


class ErrorAnswer(BaseModel):
    """What was wrong, in one line."""

    error: str
