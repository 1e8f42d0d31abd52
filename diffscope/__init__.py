"""Look into a finished run: what changed, its latents, and which fire on a text of one's own.

::

    import diffscope

    run = diffscope.open_run("results/quickstart")
    run.changes()                    # the verdict on each kind of text
    fit = run.fit("it_simpo")
    fit.latents()                    # a row per live latent
    print(fit.latent(12))            # its names and contexts
    fit.fire("Dear diary, today …")  # which latents fire on it, token by token

These names are stable from one version to the next; nothing else of diffscope is. A wrong
argument raises ``UserError``, with one sentence that names it.
"""

from diffscope.firing import Firing
from diffscope.fits import Fit
from diffscope.latents import Context, Latent
from diffscope.opened_run import Run, open_run
from workflow_scripts.common.cli import UserError

__all__ = ["Context", "Firing", "Fit", "Latent", "Run", "UserError", "open_run"]
