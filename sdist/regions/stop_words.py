"""English words that say nothing of what an image shows, and the pieces that contractions leave."""

PRONOUNS = (
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself "
    "it its itself they them their theirs themselves who whom whose which what this that these those"
)
ARTICLES_AND_QUANTITIES = "a an the all any both each few more most other some such own same no nor not only too very so than"
AUXILIARIES = (
    "am is are was were be been being have has had having do does did doing will would shall should can could may might must "
    "need just don now"
)
PREPOSITIONS = (
    "of at by for with about against between into through during before after above below to from up down in out on off over "
    "under"
)
CONNECTIVES = "and but if or because as until while again further then once here there when where why how"
PIECES = (
    "s t d m o re ve ll y ma ain aren couldn didn doesn hadn hasn haven isn mightn mustn needn shan shouldn wasn weren won wouldn"
)

STOP_WORDS = frozenset(f"{PRONOUNS} {ARTICLES_AND_QUANTITIES} {AUXILIARIES} {PREPOSITIONS} {CONNECTIVES} {PIECES}".split())
