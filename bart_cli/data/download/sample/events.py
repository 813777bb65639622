"""What happens in the invented world: kinds of events, told at length and in brief.

Each kind makes a Story: sentences of news in several phrasings, sentences about other things of
the same kind (with names and numbers that compete), and a brief in other words than the article's.
Which brief is written follows from what happened, never from chance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bart_cli.data.download.sample.world import Cast


@dataclass(frozen=True)
class Story:
    """One event.

    town: where it happens. news: what a reader must know, in order. others: old or other events.
    voices: quotes and reactions. brief: the summary.
    """

    town: str
    news: tuple[str, ...]
    others: tuple[str, ...]
    voices: tuple[str, ...]
    brief: str


def election(cast: Cast) -> Story:
    """A vote for mayor."""
    town, other = cast.town(), cast.town()
    winner, loser, clerk = cast.person(), cast.person(), cast.person()
    votes, lost, old = cast.number(2000, 9900, 10), cast.number(500, 1900, 10), cast.number(10, 60)
    day, plan = (
        cast.day(),
        cast.pick("a new school", "cheaper buses", "a public park", "lower taxes"),
    )
    recount = cast.chance(0.5)
    end = (
        cast.pick(
            f"{loser.last} has asked the court for a second count.",
            f"The count will be repeated because {loser.last} filed a complaint.",
        )
        if recount
        else cast.pick(
            f"{loser.last} called to admit defeat before midnight.",
            f"By midnight {loser.last} had accepted the result.",
        )
    )
    return Story(
        town=town,
        news=(
            cast.pick(
                f"Voters in {town} went to the polls on {day}, and {winner} came out ahead.",
                f"When the polls closed on {day}, {winner} had the most support in {town}.",
                f"It was {winner} whom most people in {town} chose on {day}.",
            ),
            cast.pick(
                f"{winner.last} received {votes} votes, and {loser} had {lost} of them.",
                f"The final tally gave {votes} votes to {winner.last} and {lost} to {loser}.",
            ),
            cast.pick(
                f"During the campaign {winner.last} had promised {plan}.",
                f"The promise of {plan} was at the heart of the campaign of {winner.last}.",
            ),
            end,
        ),
        others=(
            f"In nearby {other} a similar vote was decided by only {old} ballots last year.",
            f"{clerk}, the town clerk, said the lines were long in the morning.",
        ),
        voices=(
            f'"People wanted something different this time," said {clerk}.',
            "Turnout was higher than anybody had expected.",
        ),
        brief=f"{winner} has been elected mayor of {town} with {votes} votes after promising "
        + f"{plan}. "
        + (f"Rival {loser} demands a recount." if recount else f"Rival {loser} conceded."),
    )


def results(cast: Cast) -> Story:
    """A company's year."""
    town, firm, rival = cast.town(), cast.firm(), cast.firm()
    boss, analyst = cast.person(), cast.person()
    money, before, jobs = cast.number(20, 900), cast.number(20, 900), cast.number(100, 4000, 50)
    month, good = cast.month(), cast.chance(0.5)
    what = "profit" if good else "loss"
    jobs_line = (
        cast.pick(
            f"It wants to fill {jobs} new positions before the end of the year.",
            f"Managers are looking for {jobs} additional workers.",
        )
        if good
        else cast.pick(
            f"{jobs} people will have to leave, the board decided.",
            f"The board decided that {jobs} positions are no longer needed.",
        )
    )
    return Story(
        town=town,
        news=(
            cast.pick(
                f"{firm}, which has its headquarters in {town}, presented its books in {month}.",
                f"In {month} the books of {firm} were opened at its headquarters in {town}.",
            ),
            cast.pick(
                f"They show a {what} of {money} million dollars.",
                f"At the bottom stands a {what} of {money} million dollars.",
            ),
            jobs_line,
            cast.pick(
                f"Chief executive {boss} spoke of {'strong demand' if good else 'high costs'}.",
                f"{boss}, the chief executive, blamed {'nobody' if good else 'high costs'} "
                f"and praised {'strong demand' if good else 'the staff'}.",
            ),
        ),
        others=(
            f"Its competitor {rival} had reported {before} million dollars in the spring.",
            f"Shares of {rival} hardly moved on the news.",
        ),
        voices=(
            f'"We did not see this coming," said {analyst}, who follows the industry.',
            f"{analyst}, an analyst, called the figures a surprise.",
        ),
        brief=(
            f"{firm} of {town} earned {money} million dollars and will hire {jobs} workers, "
            f"according to chief executive {boss}."
            if good
            else f"{firm} of {town} lost {money} million dollars and will cut {jobs} jobs, "
            f"according to chief executive {boss}."
        ),
    )


def storm(cast: Cast) -> Story:
    """A storm over a town."""
    town, other = cast.town(), cast.town()
    chief, farmer = cast.person(), cast.person()
    homes, speed, old = cast.number(200, 9000, 50), cast.number(60, 140), cast.number(20, 58)
    day, hurt = cast.day(), cast.chance(0.5)
    people = cast.number(2, 19)
    harm = (
        cast.pick(
            f"Doctors treated {people} people for broken bones and cuts.",
            f"Falling branches struck {people} people, who were taken to hospital.",
        )
        if hurt
        else cast.pick("Nobody was harmed.", "By luck no one came to harm.")
    )
    return Story(
        town=town,
        news=(
            cast.pick(
                f"Late on {day} the wind over {town} reached {speed} miles an hour.",
                f"Gusts of {speed} miles an hour swept through {town} on {day}.",
            ),
            cast.pick(
                f"Power lines came down, and the lights went out in {homes} houses.",
                f"In {homes} houses the lights went out when power lines came down.",
            ),
            harm,
            cast.pick(
                f"Fire chief {chief} told residents to stay inside until morning.",
                f"Residents should stay inside until morning, fire chief {chief} advised.",
            ),
        ),
        others=(
            f"The last time it blew this hard in {other}, {old} roofs were damaged.",
            f"Farmers around {other} had been waiting for rain for weeks.",
        ),
        voices=(
            f'"It sounded like a train," said {farmer}, who keeps sheep on the hill.',
            f"{farmer} found a garden chair on the roof of the barn.",
        ),
        brief=f"A storm with winds of {speed} mph cut power to {homes} homes in {town}. "
        + (f"{people} people were injured." if hurt else "There were no injuries."),
    )


def match(cast: Cast) -> Story:
    """A game of football."""
    town, guest, third = cast.town(), cast.town(), cast.town()
    scorer, coach, keeper = cast.person(), cast.person(), cast.person()
    ours, theirs = cast.random.randint(2, 6), cast.random.randint(0, 1)
    minute, crowd, old = cast.number(60, 89), cast.number(2000, 30000, 100), cast.number(3, 40)
    day, final = cast.day(), cast.chance(0.5)
    stake = (
        cast.pick("The cup stays in town for a year.", "The players lifted the cup at sunset.")
        if final
        else cast.pick(
            "It is their first place in the table since spring.",
            "The team now stands first in the table.",
        )
    )
    return Story(
        town=town,
        news=(
            cast.pick(
                f"{town} met {guest} on {day} and was the better side from the start.",
                f"On {day} the team of {guest} came to {town} and had little to cheer about.",
            ),
            cast.pick(
                f"After ninety minutes the board showed {ours} to {theirs} for the hosts.",
                f"The hosts left the field with {ours} goals, the visitors with {theirs}.",
            ),
            cast.pick(
                f"The goal that settled it fell in minute {minute}, from the foot of {scorer}.",
                f"{scorer} settled the matter in minute {minute}.",
            ),
            stake,
        ),
        others=(
            f"A week ago the players of {third} had lost on the same ground by {old} points.",
            f"Tickets for {crowd} seats were gone within hours.",
        ),
        voices=(
            f'"We never stopped running," said coach {coach}.',
            f"Goalkeeper {keeper} left the field with a sore knee.",
        ),
        brief=f"{town} beat {guest} {ours}-{theirs} with a late goal by {scorer} "
        + ("to win the cup." if final else "to lead the league."),
    )


def finding(cast: Cast) -> Story:
    """A discovery by scientists."""
    town, other = cast.town(), cast.town()
    lead, critic = cast.person(), cast.person()
    cases, years, old = cast.number(40, 990), cast.number(3, 30), cast.number(31, 39)
    habit = cast.pick("walking", "singing", "gardening", "swimming", "reading", "dancing")
    good = cast.pick("sleep", "memory", "hearing", "eyesight", "balance")
    doubt = cast.chance(0.5)
    end = (
        cast.pick(
            f"{critic}, who was not involved, warned that the sample was small.",
            f"The sample is too small to be sure, warned {critic}, who was not involved.",
        )
        if doubt
        else cast.pick(
            f"A second team led by {critic} saw the same effect.",
            f"The effect was seen again by a team around {critic}.",
        )
    )
    return Story(
        town=town,
        news=(
            cast.pick(
                f"For {years} years the University of {town} followed {cases} adults.",
                f"At the University of {town}, {cases} adults were observed for {years} years.",
            ),
            cast.pick(
                f"Those who spent time {habit} every week did better in tests of {good}.",
                f"In tests of {good} the best were those who spent time {habit} every week.",
            ),
            cast.pick(
                f"The work was directed by {lead} and appeared in a journal.",
                f"{lead} directed the work, which appeared in a journal.",
            ),
            end,
        ),
        others=(
            f"Earlier work in {other} had looked at {old} children only.",
            f"A laboratory in {other} had hoped for a different answer.",
        ),
        voices=(
            '"Small habits add up," one of the volunteers said.',
            "Funding came from a charity that does not wish to be named.",
        ),
        brief=f"A {town} study of {cases} adults led by {lead} links {habit} to better {good}. "
        + (f"{critic} doubts the result." if doubt else f"{critic} confirmed the result."),
    )


def ruling(cast: Cast) -> Story:
    """A judgment in court."""
    town, firm, other = cast.town(), cast.firm(), cast.firm()
    judge, worker, lawyer = cast.person(), cast.person(), cast.person()
    money, old = cast.number(20, 950, 5), cast.number(3, 19)
    reason = cast.pick("unpaid overtime", "a faulty machine", "a broken contract", "polluted water")
    guilty, day = cast.chance(0.5), cast.day()
    return Story(
        town=town,
        news=(
            cast.pick(
                f"The case that {worker} brought against {firm} ended on {day} in {town}.",
                f"On {day} a court in {town} heard the end of a case between {worker} and {firm}.",
            ),
            cast.pick(f"It was about {reason}.", f"At issue was {reason}."),
            cast.pick(
                f"Judge {judge} found {'for' if guilty else 'against'} {worker.last}.",
                f"To judge {judge} the claim was {'justified' if guilty else 'baseless'}.",
            ),
            cast.pick(
                f"The sum that was asked for stood at {money} thousand dollars.",
                f"{worker.last} had asked for {money} thousand dollars.",
            ),
        ),
        others=(
            f"A claim against {other} had been settled for {old} thousand dollars in the past.",
            f"{other} was not part of the proceedings.",
        ),
        voices=(
            f'"We will read the decision with care," said {lawyer}, a lawyer.',
            f"{lawyer}, who spoke for the defence, left by the back door.",
        ),
        brief=(
            f"A judge in {town} ordered {firm} to pay {worker} {money},000 dollars over {reason}."
            if guilty
            else f"A judge in {town} cleared {firm} of a {money},000 dollar claim by {worker} "
            f"over {reason}."
        ),
    )


def strike(cast: Cast) -> Story:
    """A dispute about wages."""
    town, firm, other = cast.town(), cast.firm(), cast.firm()
    leader, manager = cast.person(), cast.person()
    workers, percent, days = cast.number(200, 5000, 20), cast.number(2, 12), cast.number(13, 60)
    old, solved = cast.number(61, 90), cast.chance(0.5)
    end = (
        cast.pick(
            f"Both sides shook hands at dawn, and wages go up by {percent} percent.",
            f"At dawn the two sides settled on {percent} percent more pay.",
        )
        if solved
        else cast.pick(
            f"They ask for {percent} percent more pay, and talks have led to nothing.",
            f"Talks about {percent} percent more pay have led to nothing.",
        )
    )
    return Story(
        town=town,
        news=(
            cast.pick(
                f"At the plant of {firm} in {town}, {workers} people put down their tools.",
                f"{workers} people at the {town} plant of {firm} put down their tools.",
            ),
            cast.pick(f"That was {days} days ago.", f"The machines stood still for {days} days."),
            end,
            cast.pick(
                f"The union is led by {leader}, the company's side by {manager}.",
                f"{leader} speaks for the union, {manager} for the company.",
            ),
        ),
        others=(
            f"A walkout at {other} went on for {old} days some years back.",
            f"Drivers of {other} honked as they went past the gates.",
        ),
        voices=(
            '"Bread has become dear," a welder said.',
            "Neighbours brought soup and firewood to the gates.",
        ),
        brief=(
            f"A strike by {workers} {firm} workers in {town} ended after {days} days with a "
            f"{percent} percent raise, said union leader {leader}."
            if solved
            else f"A strike by {workers} {firm} workers in {town} for a {percent} percent raise "
            f"continues after {days} days, said union leader {leader}."
        ),
    )


def building(cast: Cast) -> Story:
    """A bridge, a line, a museum: opened or late."""
    town, other = cast.town(), cast.town()
    mayor, architect = cast.person(), cast.person()
    what = cast.pick("bridge", "museum", "library", "station", "theatre", "hospital")
    cost, years, old = cast.number(12, 480), cast.number(2, 11), cast.number(481, 900)
    month, ready = cast.month(), cast.chance(0.5)
    end = (
        cast.pick(
            f"In {month} mayor {mayor} cut the ribbon.",
            f"Mayor {mayor} cut the ribbon in {month}.",
        )
        if ready
        else cast.pick(
            f"Mayor {mayor} had hoped for {month}, but the work is not finished.",
            f"The work will not be finished in {month}, mayor {mayor} admitted.",
        )
    )
    return Story(
        town=town,
        news=(
            cast.pick(
                f"For {years} years cranes have stood where {town} wants its new {what}.",
                f"Cranes have stood around the new {what} of {town} for {years} years.",
            ),
            cast.pick(
                f"The bill has grown to {cost} million dollars.",
                f"So far {cost} million dollars have been spent on it.",
            ),
            cast.pick(
                f"The plans were drawn by {architect}.",
                f"{architect} is the architect of the {what}.",
            ),
            end,
        ),
        others=(
            f"A {what} in {other} was given up after {old} drawings.",
            f"Visitors from {other} come to look at the site every weekend.",
        ),
        voices=(
            '"It is bigger than I thought," said a boy with an ice cream.',
            "A brass band played although it drizzled.",
        ),
        brief=(
            f"{town} opened a {what} designed by {architect} after {years} years at a cost of "
            f"{cost} million dollars."
            if ready
            else f"The {cost} million dollar {what} designed by {architect} in {town} is delayed "
            f"after {years} years."
        ),
    )


def recall(cast: Cast) -> Story:
    """A product called back."""
    town, firm, other = cast.town(), cast.firm(), cast.firm()
    spokes, mother = cast.person(), cast.person()
    product = cast.pick("toasters", "bicycles", "heaters", "lamps", "prams", "kettles", "scooters")
    fault = cast.pick("brakes", "wiring", "handles", "switches", "screws")
    units, cases = cast.number(3000, 90000, 500), cast.number(4, 60)
    old, refund = cast.number(61, 99), cast.chance(0.5)
    return Story(
        town=town,
        news=(
            cast.pick(
                f"Owners of {product} made by {firm} should not use them any longer.",
                f"Anybody who owns {product} made by {firm} is told to leave them alone.",
            ),
            cast.pick(
                f"In {cases} cases the {fault} had failed.",
                f"The {fault} had failed in {cases} cases.",
            ),
            cast.pick(
                f"The factory in {town} had delivered {units} of them.",
                f"{units} of them left the factory in {town}.",
            ),
            (
                cast.pick(
                    f"Customers get their money back, said {spokes} for the company.",
                    f"The money will be returned, said {spokes} for the company.",
                )
                if refund
                else cast.pick(
                    f"New parts are sent by mail, said {spokes} for the company.",
                    f"The company mails new parts, said its spokesperson {spokes}.",
                )
            ),
        ),
        others=(
            f"Products of {other} with {old} similar complaints are not affected.",
            f"Shops had sold goods of {other} beside them.",
        ),
        voices=(
            f'"I was lucky," said {mother}, who noticed the fault in time.',
            f"{mother} had written two letters without an answer.",
        ),
        brief=f"{firm} recalls {units} {product} from {town} because of faulty {fault} and offers "
        + ("refunds" if refund else "repairs")
        + f", {spokes} said.",
    )


def rescue(cast: Cast) -> Story:
    """An animal in trouble."""
    town, other = cast.town(), cast.town()
    hero, owner = cast.person(), cast.person()
    animal = cast.pick("horse", "dog", "calf", "cat", "goat", "donkey", "swan")
    place = cast.pick("a well", "a frozen pond", "a drain", "a mud pit", "a deep ditch")
    hours, men, old = cast.number(2, 14), cast.number(15, 30), cast.number(31, 80)
    home, day = cast.chance(0.5), cast.day()
    return Story(
        town=town,
        news=(
            cast.pick(
                f"Cries from {place} near {town} woke a family early on {day}.",
                f"Early on {day} somebody heard cries from {place} near {town}.",
            ),
            cast.pick(
                f"It was a {animal} that belonged to {owner}.",
                f"The {animal} of {owner} had been missing since the evening.",
            ),
            cast.pick(
                f"It took {hero} and {men} others {hours} hours to lift the creature out.",
                f"{hero} and {men} others needed {hours} hours with ropes and boards.",
            ),
            (
                cast.pick("It was led home the same night.", "The same night it was back home.")
                if home
                else cast.pick(
                    "It was taken to an animal clinic for the night.",
                    "A vet kept it at the clinic for the night.",
                )
            ),
        ),
        others=(
            f"Last winter {old} geese had been freed from the ice in {other}.",
            f"Volunteers from {other} had been on their way as well.",
        ),
        voices=(
            '"It looked at us as if it knew," one helper said.',
            "Children brought carrots and blankets.",
        ),
        brief=f"{hero} rescued a {animal} owned by {owner} from {place} in {town} after "
        + f"{hours} hours. "
        + ("The animal is home." if home else "The animal is in a clinic."),
    )


def prize(cast: Cast) -> Story:
    """An award for a writer or artist."""
    town, other = cast.town(), cast.town()
    artist, second, juror = cast.person(), cast.person(), cast.person()
    work = cast.pick("novel", "film", "song", "painting", "play", "poem")
    theme = cast.pick("the sea", "a lost brother", "the harvest", "a night train", "a lighthouse")
    money, rivals, old = cast.number(10, 95, 5), cast.number(100, 900), cast.number(20, 60)
    absent = cast.chance(0.5)
    return Story(
        town=town,
        news=(
            cast.pick(
                f"The jury in {town} had {rivals} works to choose from.",
                f"{rivals} works had been sent to the jury in {town}.",
            ),
            cast.pick(
                f"In the end a {work} about {theme} by {artist} moved them most.",
                f"What moved them most was a {work} about {theme}, the work of {artist}.",
            ),
            cast.pick(
                f"The winner gets {money} thousand dollars.",
                f"{money} thousand dollars go with the honour.",
            ),
            (
                cast.pick(
                    f"{artist.last} did not come to the ceremony.",
                    f"At the ceremony the chair of {artist.last} stayed empty.",
                )
                if absent
                else cast.pick(
                    f"{artist.last} wept on the stage.",
                    f"On the stage {artist.last} was close to tears.",
                )
            ),
        ),
        others=(
            f"{second}, who came second, lives in {other} and is {old} years old.",
            f"The year before, the honour had gone to a baker from {other}.",
        ),
        voices=(
            f'"I read it twice in one night," said {juror} of the jury.',
            f"{juror}, a member of the jury, spoke for an hour.",
        ),
        brief=f"{artist} won the {town} prize of {money},000 dollars for a {work} about {theme} "
        + ("but stayed away." if absent else "and cried with joy."),
    )


def school(cast: Cast) -> Story:
    """A rule for schools."""
    town, other = cast.town(), cast.town()
    head, parent = cast.person(), cast.person()
    thing = cast.pick("phones", "homework", "uniforms", "sugary drinks", "early lessons")
    schools, pupils, old = cast.number(4, 40), cast.number(900, 9900, 50), cast.number(41, 95)
    month, ban = cast.month(), cast.chance(0.5)
    return Story(
        town=town,
        news=(
            cast.pick(
                f"There are {schools} schools in {town}, with {pupils} pupils.",
                f"{pupils} pupils go to the {schools} schools of {town}.",
            ),
            (
                cast.pick(
                    f"From {month} on, {thing} will no longer be allowed there.",
                    f"They will have to do without {thing} from {month} on.",
                )
                if ban
                else cast.pick(
                    f"From {month} on, {thing} will be allowed again.",
                    f"They will have {thing} back from {month} on.",
                )
            ),
            cast.pick(
                f"The decision was made by {head}, who directs the school office.",
                f"{head}, who directs the school office, made the decision.",
            ),
            cast.pick(
                f"A petition by {parent} had started the debate.",
                f"It was {parent} whose petition had started the debate.",
            ),
        ),
        others=(
            f"In {other} a trial of {old} days was stopped without much noise.",
            f"Teachers in {other} are watching with interest.",
        ),
        voices=(
            '"I can live with that," a pupil with a red cap said.',
            "Some parents want to be asked the next time.",
        ),
        brief=(
            f"{head} bans {thing} for {pupils} pupils in {town} from {month} after a petition "
            f"by {parent}."
            if ban
            else f"{head} permits {thing} for {pupils} pupils in {town} from {month} after a "
            f"petition by {parent}."
        ),
    )


KINDS: tuple[Callable[[Cast], Story], ...] = (
    election,
    results,
    storm,
    match,
    finding,
    ruling,
    strike,
    building,
    recall,
    rescue,
    prize,
    school,
)
