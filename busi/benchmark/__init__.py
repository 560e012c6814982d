"""How fast the study runs, where its time goes, and how both grow: figures that anyone can measure again."""
