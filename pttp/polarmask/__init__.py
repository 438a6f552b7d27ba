from pttp.lazy import predictor

__getattr__ = predictor(__name__)
