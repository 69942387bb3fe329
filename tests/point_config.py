"""Help for tests of commands: the config of a point fit of a small linear-quadratic game."""

POINT_FIT = """
[data]
reader = "table"
path = "data.csv"

[game]
name = "LinearQuadratic"
base_rate = 0.6

[paths]
gamma = {family = "Constant", prior = {distribution = "LogNormal", loc = 0.4, scale = 0.5}}

[observation]
kind = "Multinomial"

[initial]
kind = "Known"
mu0 = [0.2, 0.3, 0.5]

[grid]
substeps = 1
method = "anderson"

[inference]
method = "point"
starts = 1
prior_samples = 0
"""
