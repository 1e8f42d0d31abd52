"""Grammars of chat in French, German, Spanish and Italian."""

from __future__ import annotations

from workflow_scripts.generator.grammar import ChatRecipe, Recipe, Sampler

FRENCH = ChatRecipe(
    prompts=(
        "pouvez-vous me parler [de la|d'une] <@lieu> ?",
        "réponds en français : où se trouve la <@lieu> ?",
        "answer in French: what can I see at the <@lieu>?",
        "bonjour, je cherche une <@lieu> pour <@temps>.",
        "tell me in French about the <@lieu>.",
        "does the <@lieu> open [soon|late|on Sundays]? French, please.",
    ),
    answer=Recipe(
        slots={
            "lieu": (
                "bibliothèque",
                "gare",
                "boulangerie",
                "plage",
                "place",
                "montagne",
                "cuisine",
            ),
            "temps": ("demain matin", "ce soir", "dimanche", "tout l'été", "cette semaine"),
            "adj": ("très belle", "assez petite", "toujours calme", "bien connue", "fermée"),
            "chose": (
                "du pain frais",
                "des livres anciens",
                "du fromage",
                "une carte",
                "des fleurs",
            ),
            "verbe": ("trouver", "prendre", "choisir", "regarder", "goûter"),
        },
        groups=(
            (
                "la <@lieu> est <adj>, surtout <temps>.",
                "bien sûr, voici quelques mots sur la <@lieu>.",
                "vous pouvez <verbe> <chose> à la <@lieu>.",
                "avec plaisir : la <@lieu> ouvre <temps>.",
                "il y a une <@lieu> <adj> près d'ici.",
            ),
            (
                "on y vient pour <verbe> <chose> <temps>.",
                "<temps>, je vous conseille de <verbe> <chose>.",
                "les gens aiment beaucoup <verbe> <chose> dans cette <@lieu>.",
                "elle est <adj>, mais il faut arriver tôt.",
                "pensez à <verbe> <chose> avant de partir.",
                "c'est une <@lieu> <adj>, et l'entrée est gratuite.",
                "si vous avez le temps, allez-y <temps>.",
            ),
        ),
        plans=((0, 1, 1), (0, 1, 1, 1), (0, 1, 1, 1, 1), (0, 0, 1, 1)),
    ),
)

GERMAN = ChatRecipe(
    prompts=(
        "kannst du mir etwas über den <@ort> erzählen?",
        "bitte antworte auf Deutsch: wie komme ich zum <@ort>?",
        "answer in German: what is special about the <@ort>?",
        "guten Tag, ich suche einen <@ort> für <@zeit>.",
        "tell me in German about the <@ort>.",
        "is the <@ort> open [today|all day|at noon]? German, please.",
    ),
    answer=Recipe(
        slots={
            "ort": ("Bahnhof", "Markt", "Garten", "Wald", "Laden", "Hafen", "Spielplatz"),
            "zeit": (
                "heute Abend",
                "morgen früh",
                "den Sonntag",
                "das Wochenende",
                "nächste Woche",
            ),
            "art": (
                "sehr schön",
                "ziemlich groß",
                "oft überfüllt",
                "leider geschlossen",
                "recht ruhig",
            ),
            "ding": (
                "frisches Obst",
                "eine Fahrkarte",
                "alte Bücher",
                "warme Brötchen",
                "ein Fahrrad",
            ),
            "tun": ("kaufen", "finden", "mitnehmen", "bestellen", "ansehen"),
        },
        groups=(
            (
                "der <@ort> ist <art> und liegt in der Nähe.",
                "gerne, ich erzähle etwas über den <@ort>.",
                "im <@ort> kann man <ding> <tun>.",
                "natürlich: zum <@ort> sind es nur zehn Minuten.",
                "es gibt hier einen <@ort>, der <art> ist.",
            ),
            (
                "dort können Sie <ding> <tun>.",
                "für <zeit> ist er <art>.",
                "viele Leute möchten dort <ding> <tun>, besonders im Sommer.",
                "man sollte früh kommen, weil er <art> ist.",
                "vergessen Sie nicht, <ding> zu <tun>.",
                "wer will, darf auch <ding> <tun>.",
                "planen Sie <zeit> ein, denn er ist <art>.",
            ),
        ),
        plans=((0, 1, 1), (0, 1, 1, 1), (0, 1, 1, 1, 1), (0, 0, 1, 1)),
    ),
)

SPANISH = ChatRecipe(
    prompts=(
        "¿qué me puedes decir sobre la <@sitio>?",
        "responde en español: ¿dónde está la <@sitio>?",
        "answer in Spanish: when should I visit the <@sitio>?",
        "hola, necesito una <@sitio> para <@cuando>.",
        "tell me in Spanish about the <@sitio>.",
        "is the <@sitio> near the river? Spanish, please.",
    ),
    answer=Recipe(
        slots={
            "sitio": ("playa", "iglesia", "tienda", "escuela", "calle", "cocina", "biblioteca"),
            "cuando": ("mañana", "esta noche", "el domingo", "todo el año", "la tarde"),
            "como": ("muy bonita", "bastante lejos", "siempre llena", "poco conocida", "abierta"),
            "cosa": ("fruta fresca", "un regalo", "libros viejos", "pan y queso", "flores"),
            "hacer": ("comprar", "encontrar", "probar", "llevar", "mirar"),
        },
        groups=(
            (
                "la <@sitio> es <como> y está en el centro.",
                "claro que sí, la <@sitio> es <como>.",
                "en la <@sitio> se puede <hacer> <cosa>.",
                "por supuesto: hay una <@sitio> <como> cerca del río.",
                "con mucho gusto le hablo de la <@sitio>.",
            ),
            (
                "allí usted puede <hacer> <cosa>.",
                "para <cuando>, le recomiendo <hacer> <cosa>.",
                "mucha gente quiere <hacer> <cosa> en esta <@sitio>.",
                "también es <como>, pero hay que llegar temprano.",
                "no olvide <hacer> <cosa> antes de salir.",
                "además, la entrada cuesta poco y es <como>.",
                "si tiene tiempo, vaya <cuando>.",
            ),
        ),
        plans=((0, 1, 1), (0, 1, 1, 1), (0, 1, 1, 1, 1), (0, 0, 1, 1)),
    ),
)

ITALIAN = ChatRecipe(
    prompts=(
        "che cosa sai [dirmi della|della] <@posto>?",
        "rispondi in italiano: quando apre la <@posto>?",
        "answer in Italian: why do people like the <@posto>?",
        "ciao, vorrei una <@posto> per <@quando>.",
        "tell me in Italian about the <@posto>.",
        "was the <@posto> built long ago? Italian, please.",
    ),
    answer=Recipe(
        slots={
            "posto": (
                "piazza",
                "stazione",
                "spiaggia",
                "chiesa",
                "trattoria",
                "scuola",
                "libreria",
            ),
            "quando": ("domani", "stasera", "domenica", "questa settimana", "il pomeriggio"),
            "come": ("molto bella", "troppo piccola", "quasi vuota", "davvero famosa", "aperta"),
            "cosa": (
                "il gelato",
                "un biglietto",
                "della frutta",
                "gli spaghetti",
                "un vecchio libro",
            ),
            "fare": ("comprare", "trovare", "assaggiare", "scegliere", "portare"),
        },
        groups=(
            (
                "la <@posto> è <come> e si trova vicino al ponte.",
                "certo, la <@posto> è <come>.",
                "nella <@posto> si può <fare> <cosa>.",
                "volentieri: ecco qualcosa sulla <@posto>.",
                "c'è una <@posto> <come> dietro l'angolo.",
            ),
            (
                "lì potete <fare> <cosa>.",
                "<quando> conviene <fare> <cosa> con gli amici.",
                "tutti vogliono <fare> <cosa> in questa <@posto>.",
                "è anche <come>, però bisogna arrivare presto.",
                "non dimenticate di <fare> <cosa> prima di uscire.",
                "inoltre l'ingresso è gratuito e la gente è gentile.",
                "se avete tempo, tornate <quando>.",
            ),
        ),
        plans=((0, 1, 1), (0, 1, 1, 1), (0, 1, 1, 1, 1), (0, 0, 1, 1)),
    ),
)

LANGUAGES = (FRENCH, GERMAN, SPANISH, ITALIAN)


def write_multilingual(sampler: Sampler) -> tuple[str, str]:
    """Write a question and an answer in French, German, Spanish or Italian."""
    return sampler.pick(LANGUAGES).write(sampler)
