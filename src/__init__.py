"""The import root of FlashSlides AI.

The architecture document names its modules `src.common…`, so `src` itself is the package that is
installed; the distribution and the command are called `flashslides`. See
`docs/decisions/0001-the-import-root-is-src.md`.
"""
