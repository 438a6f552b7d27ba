def __getattr__(name: str):
    """`pttp.cagan.Predictor`, for which torch is imported only when it is asked for."""
    if name == "Predictor":
        from pttp.cagan.predict import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
