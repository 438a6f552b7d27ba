def __getattr__(name: str):
    """`pttp.stegastamp.Predictor`, for which torch is imported only when it is asked for."""
    if name == "Predictor":
        from pttp.stegastamp.predict import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
