"""Can this run tell collapse from health at all?"""
