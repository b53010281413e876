"""Arithmetic that editors share: functions of a model handle and of values, without settings of their own."""
