"""Other events: storms, games, discoveries, recalls, rescues, prizes.

In: a cast from which to draw names and numbers. Out: a Story that also contains sentences about
similar events, whose names and numbers compete with those of the news.
"""

from __future__ import annotations

from bart_cli.data.download.sample.world import Cast, Story


def storm(cast: Cast) -> Story:
    town, other = cast.town(), cast.town()
    chief, farmer = cast.person(), cast.person()
    homes, speed, old = cast.number(200, 9000, 50), cast.number(60, 140), cast.number(20, 58)
    day, hurt = cast.day(), cast.chance(0.5)
    people = cast.number(2, 19)
    harm = cast.line(
        f"Doctors treated {people} people for broken bones and cuts. / "
        f"Falling branches struck {people} people, who were taken to hospital."
        if hurt
        else "Nobody was harmed. / By luck no one came to harm."
    )
    text = f"""
        Late on {day} the wind over {town} reached {speed} miles an hour.
        / Gusts of {speed} miles an hour swept through {town} on {day}.
        Power lines came down, and the lights went out in {homes} houses.
        / In {homes} houses the lights went out when power lines came down.
        {harm}
        Fire chief {chief} told residents to stay inside until morning.
        / Residents should stay inside until morning, fire chief {chief} advised.

        The last time it blew this hard in {other}, {old} roofs were damaged.
        Farmers around {other} had been waiting for rain for weeks.

        "It sounded like a train," said {farmer}, who keeps sheep on the hill.
        {farmer} found a garden chair on the roof of the barn.
    """
    brief = f"A storm with winds of {speed} mph cut power to {homes} homes in {town}. " + (
        f"{people} people were injured." if hurt else "There were no injuries."
    )
    return cast.story(town, text, brief)


def match(cast: Cast) -> Story:
    """A football game."""
    town, guest, third = cast.town(), cast.town(), cast.town()
    scorer, coach, keeper = cast.person(), cast.person(), cast.person()
    ours, theirs = cast.random.randint(2, 6), cast.random.randint(0, 1)
    minute, crowd, old = cast.number(60, 89), cast.number(2000, 30000, 100), cast.number(3, 40)
    day, final = cast.day(), cast.chance(0.5)
    stake = cast.line(
        "The cup stays in town for a year. / The players lifted the cup at sunset."
        if final
        else "It is their first place in the table since spring. / "
        "The team now stands first in the table."
    )
    text = f"""
        {town} met {guest} on {day} and was the better side from the start.
        / On {day} the team of {guest} came to {town} and had little to cheer about.
        After ninety minutes the board showed {ours} to {theirs} for the hosts.
        / The hosts left the field with {ours} goals, the visitors with {theirs}.
        The goal that settled it fell in minute {minute}, from the foot of {scorer}.
        / {scorer} settled the matter in minute {minute}.
        {stake}

        A week ago the players of {third} had lost on the same ground by {old} points.
        Tickets for {crowd} seats were gone within hours.

        "We never stopped running," said coach {coach}.
        Goalkeeper {keeper} left the field with a sore knee.
    """
    brief = f"{town} beat {guest} {ours}-{theirs} with a late goal by {scorer} " + (
        "to win the cup." if final else "to lead the league."
    )
    return cast.story(town, text, brief)


def finding(cast: Cast) -> Story:
    """A discovery by scientists."""
    town, other = cast.town(), cast.town()
    lead, critic = cast.person(), cast.person()
    cases, years, old = cast.number(40, 990), cast.number(3, 30), cast.number(31, 39)
    habit = cast.pick("walking", "singing", "gardening", "swimming", "reading", "dancing")
    good = cast.pick("sleep", "memory", "hearing", "eyesight", "balance")
    doubt = cast.chance(0.5)
    end = cast.line(
        f"{critic}, who was not involved, warned that the sample was small. / "
        f"The sample is too small to be sure, warned {critic}, who was not involved."
        if doubt
        else f"A second team led by {critic} saw the same effect. / "
        f"The effect was seen again by a team around {critic}."
    )
    text = f"""
        For {years} years the University of {town} followed {cases} adults.
        / At the University of {town}, {cases} adults were observed for {years} years.
        Those who spent time {habit} every week did better in tests of {good}.
        / In tests of {good} the best were those who spent time {habit} every week.
        The work was directed by {lead} and appeared in a journal.
        / {lead} directed the work, which appeared in a journal.
        {end}

        Earlier work in {other} had looked at {old} children only.
        A laboratory in {other} had hoped for a different answer.

        "Small habits add up," one of the volunteers said.
        Funding came from a charity that does not wish to be named.
    """
    brief = f"A {town} study of {cases} adults led by {lead} links {habit} to better {good}. " + (
        f"{critic} doubts the result." if doubt else f"{critic} confirmed the result."
    )
    return cast.story(town, text, brief)


def recall(cast: Cast) -> Story:
    town, firm, other = cast.town(), cast.firm(), cast.firm()
    spokes, mother = cast.person(), cast.person()
    product = cast.pick("toasters", "bicycles", "heaters", "lamps", "prams", "kettles", "scooters")
    fault = cast.pick("brakes", "wiring", "handles", "switches", "screws")
    units, cases = cast.number(3000, 90000, 500), cast.number(4, 60)
    old, refund = cast.number(61, 99), cast.chance(0.5)
    fate = (
        f"Customers get their money back, said {spokes} for the company. / "
        f"The money will be returned, said {spokes} for the company."
        if refund
        else f"New parts are sent by mail, said {spokes} for the company. / "
        f"The company mails new parts, said its spokesperson {spokes}."
    )
    text = f"""
        Owners of {product} made by {firm} should not use them any longer.
        / Anybody who owns {product} made by {firm} is told to leave them alone.
        In {cases} cases the {fault} had failed.
        / The {fault} had failed in {cases} cases.
        The factory in {town} had delivered {units} of them.
        / {units} of them left the factory in {town}.
        {fate}

        Products of {other} with {old} similar complaints are not affected.
        Shops had sold goods of {other} beside them.

        "I was lucky," said {mother}, who noticed the fault in time.
        {mother} had written two letters without an answer.
    """
    brief = (
        f"{firm} recalls {units} {product} from {town} because of faulty {fault} and offers "
        + ("refunds" if refund else "repairs")
        + f", {spokes} said."
    )
    return cast.story(town, text, brief)


def rescue(cast: Cast) -> Story:
    """An animal in trouble."""
    town, other = cast.town(), cast.town()
    hero, owner = cast.person(), cast.person()
    animal = cast.pick("horse", "dog", "calf", "cat", "goat", "donkey", "swan")
    place = cast.pick("a well", "a frozen pond", "a drain", "a mud pit", "a deep ditch")
    hours, men, old = cast.number(2, 14), cast.number(15, 30), cast.number(31, 80)
    home, day = cast.chance(0.5), cast.day()
    fate = (
        "It was led home the same night. / The same night it was back home."
        if home
        else "It was taken to an animal clinic for the night. / "
        "A vet kept it at the clinic for the night."
    )
    text = f"""
        Cries from {place} near {town} woke a family early on {day}.
        / Early on {day} somebody heard cries from {place} near {town}.
        It was a {animal} that belonged to {owner}.
        / The {animal} of {owner} had been missing since the evening.
        It took {hero} and {men} others {hours} hours to lift the creature out.
        / {hero} and {men} others needed {hours} hours with ropes and boards.
        {fate}

        Last winter {old} geese had been freed from the ice in {other}.
        Volunteers from {other} had been on their way as well.

        "It looked at us as if it knew," one helper said.
        Children brought carrots and blankets.
    """
    brief = (
        f"{hero} rescued a {animal} owned by {owner} from {place} in {town} after "
        + f"{hours} hours. "
        + ("The animal is home." if home else "The animal is in a clinic.")
    )
    return cast.story(town, text, brief)


def prize(cast: Cast) -> Story:
    """An award for a writer or artist."""
    town, other = cast.town(), cast.town()
    artist, second, juror = cast.person(), cast.person(), cast.person()
    work = cast.pick("novel", "film", "song", "painting", "play", "poem")
    theme = cast.pick("the sea", "a lost brother", "the harvest", "a night train", "a lighthouse")
    money, rivals, old = cast.number(10, 95, 5), cast.number(100, 900), cast.number(20, 60)
    absent = cast.chance(0.5)
    fate = (
        f"{artist.last} did not come to the ceremony. / "
        f"At the ceremony the chair of {artist.last} stayed empty."
        if absent
        else f"{artist.last} wept on the stage. / On the stage {artist.last} was close to tears."
    )
    text = f"""
        The jury in {town} had {rivals} works to choose from.
        / {rivals} works had been sent to the jury in {town}.
        In the end a {work} about {theme} by {artist} moved them most.
        / What moved them most was a {work} about {theme}, the work of {artist}.
        The winner gets {money} thousand dollars.
        / {money} thousand dollars go with the honour.
        {fate}

        {second}, who came second, lives in {other} and is {old} years old.
        The year before, the honour had gone to a baker from {other}.

        "I read it twice in one night," said {juror} of the jury.
        {juror}, a member of the jury, spoke for an hour.
    """
    brief = f"{artist} won the {town} prize of {money},000 dollars for a {work} about {theme} " + (
        "but stayed away." if absent else "and cried with joy."
    )
    return cast.story(town, text, brief)
