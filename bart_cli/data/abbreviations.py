"""Abbreviations whose period does not end a sentence, by language (ISO 639-1 code).

English has its own rules in `sentences.py`. Single letters and sequences of them ("z. B.", "т.е.")
match a pattern there; they are listed only if they are in ENDING.
"""

from __future__ import annotations

ABBREVIATIONS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "": "dr prof mr mrs ms st no nr vol fig tel max min",  # common to all languages
        "cs": "ing mgr bc phdr mudr judr rndr doc tzv tzn např apod atd mj tj str čl čís hod tis "
        "mil mld sv resp popř přibl",
        "da": "bl ca dvs fx hr inkl kl mht nr osv pga st tlf vedr evt jan feb mar apr jun jul aug "
        "sep okt nov dec",
        "de": "abs abt allg art aufl ausg bd bde bes betr bsp bspw bzgl bzw ca dgl dipl ebd ehem "
        "einschl entspr etc evtl exkl fr frhr gegr gem geb gen ggf ggfs hbf hg hl hr hrsg ing inkl "
        "insb jh jhd kap kath lat lfd lt med mind mio mrd mwst nachm nat nördl od pfd phil rd "
        "sog spez std str südl svw tägl tgl tsd univ urspr usf usw verh vgl vorm westl zit ztr "
        "zzgl östl jan feb mär apr jun jul aug sep sept okt nov dez mo di mi do fr sa so",
        "el": "κα κος κυρ καθ δρ λεωφ οδ αρ αριθ σελ τηλ δηλ βλ κλπ εκ εκατ δισ χιλ άρθρ αγ",
        "es": "sr sra srta sres dr dra dña lic ing prof av avda ctra art cap ed etc gral núm "
        "pág págs tel ud uds vd vds aprox dpto sto sta excmo ej ee ff",
        "fi": "ym esim ns mm nk mrd milj tri prof jne puh klo ts so vrt huom",
        "fr": "mm mme mmes mlle mlles me dr pr st ste av bd boul chap cf env etc éd ex fig hab "
        "janv févr juil sept oct nov déc pp vol apr",
        "hu": "özv id ifj stb pl kb ún old sz szt jan febr márc ápr máj jún júl aug szept okt nov "
        "dec",
        "id": "jl jln drs dra ir hj tgl hlm jan feb mar apr jun jul agu sep okt nov des",
        "it": "sig sigg sig.ra sig.na dott dott.ssa prof prof.ssa ing avv arch geom rag on mons "
        "art cap pag pagg vol ecc es tel via ca min max gen feb mar apr mag giu lug ago set ott "
        "nov dic",
        "nl": "dhr mevr mw mr drs ir ing prof dr st blz bijv bv ca enz evt excl fig incl jl jr nl "
        "nr plm resp tel vgl zgn afd art",
        "no": "bl ca dvs f.eks hr inkl kl nr osv pga st tlf evt mill mrd jan feb mar apr jun jul "
        "aug sep okt nov des",
        "pl": "dr mgr inż prof hab lek ks gen płk por św ul al pl os np m.in tzn tzw itd itp ok "
        "tys mln mld zł gr godz min nr str rys tab art ust pkt wg pw im",
        "pt": "sr sra srs sras dr dra prof profa eng av art cap ed etc fig núm pág págs tel "
        "aprox exmo exma ex",
        "ro": "str dl dle dna dnei ing av art pag jud com bd șos et ap sc bl ian feb mart apr iun "
        "iul aug sept oct noiem dec",
        "ru": "акад англ арх бул вв вид врем вып гг гл гор гос гр греч губ див доп др ед жен зав "
        "зам им инж исп итал кан канд кв кг км кол корп коп лат лит макс мин млн млрд мм муж наб "
        "напр нем обл оз ок орг отд пер пл пос пр проф просп рев ред реж рис род руб рус сб св "
        "сек сл см соч ср ст стр тел тж тт тыс уг ул ум укр упр устар франц чел экз эл яз янв "
        "февр апр авг сент окт нояб дек",
        "sv": "bl ca dvs etc ev fr.o.m hr inkl jfr kl m.m nr osv st t.ex tel jan feb mar "
        "apr jun jul aug sep sept okt nov dec",
        "tr": "dr doç prof av sn vb vs bkz cad sok mah apt tel yy örn alm ing fr",
        "uk": "акад бул вул грн див ім кв кн млн млрд мін напр обл оз пл пор проф просп ред рис "
        "рік руб рр св сек см ст стор тис укр",
    }.items()
}
# Abbreviations that may also end a sentence: they do when a capital letter follows.
ENDING: dict[str, frozenset[str]] = {
    "cs": frozenset("apod atd".split()),
    "da": frozenset(["osv"]),
    "de": frozenset("etc usw usf dgl".split()),
    "el": frozenset(["κλπ"]),
    "es": frozenset(["etc"]),
    "fi": frozenset("ym jne".split()),
    "fr": frozenset(["etc"]),
    "it": frozenset(["ecc"]),
    "nl": frozenset(["enz"]),
    "no": frozenset(["osv"]),
    "pl": frozenset("itd itp".split()),
    "pt": frozenset(["etc"]),
    "ru": frozenset("гг вв др пр руб коп тыс млн млрд кг км мм мин сек чел".split()),
    "sv": frozenset("etc osv m.m".split()),
    "tr": frozenset(["vb", "vs"]),
    "uk": frozenset("рр грн тис млн млрд".split()),
}
# German capitalizes nouns and writes ordinals with a period ("3. Oktober"). After a number and a
# period, only these words start a new sentence.
GERMAN_STARTERS = frozenset(
    """
    der die das den dem des ein eine einen einem einer er sie es ich wir ihr man in im am an auf aus
    bei nach seit von vor zu zum zur mit für über unter und oder aber doch denn dann da so auch nun
    hier dort wo wer wie was wann warum wenn als ob dies diese dieser dieses jedoch sein seine ihre
    trotz damit danach dabei später heute gestern morgen
    """.split()
)
