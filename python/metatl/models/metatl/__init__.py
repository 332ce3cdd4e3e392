"""MetaTL (Wang, Ding and Caverlee, 2021): the model, its inner loop and its losses."""
