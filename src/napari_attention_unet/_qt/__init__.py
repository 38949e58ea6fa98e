"""The dock widget: the only place that imports Qt."""
