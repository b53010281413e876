"""Is the edit still there when the model is rounded, quantised, loaded again, trained a little?"""
