"""Models of a few thousand parameters, as another package than the SDK would offer them.

`recipes` is what such a package's entry points name, `pipelines` what its clips take, `networks`
what is in its graphs. `folders` writes model folders of random weights, and what pip would leave of
the package: toys are found by its entry points, here and in the processes of stages.
"""
