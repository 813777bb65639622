"""Events of public life: votes, companies, courts, strikes, buildings, schools.

In: a cast from which to draw names and numbers. Out: a Story that also contains sentences about
similar events, whose names and numbers compete with those of the news.
"""

from __future__ import annotations

from bart_cli.data.download.sample.world import Cast, Story


def election(cast: Cast) -> Story:
    town, other = cast.town(), cast.town()
    winner, loser, clerk = cast.person(), cast.person(), cast.person()
    votes, lost, old = cast.number(2000, 9900, 10), cast.number(500, 1900, 10), cast.number(10, 60)
    day, plan = (
        cast.day(),
        cast.pick("a new school", "cheaper buses", "a public park", "lower taxes"),
    )
    recount = cast.chance(0.5)
    end = cast.line(
        f"{loser.last} has asked the court for a second count. / "
        f"The count will be repeated because {loser.last} filed a complaint."
        if recount
        else f"{loser.last} called to admit defeat before midnight. / "
        f"By midnight {loser.last} had accepted the result."
    )
    text = f"""
        Voters in {town} went to the polls on {day}, and {winner} came out ahead.
        / When the polls closed on {day}, {winner} had the most support in {town}.
        / It was {winner} whom most people in {town} chose on {day}.
        {winner.last} received {votes} votes, and {loser} had {lost} of them.
        / The final tally gave {votes} votes to {winner.last} and {lost} to {loser}.
        During the campaign {winner.last} had promised {plan}.
        / The promise of {plan} was at the heart of the campaign of {winner.last}.
        {end}

        In nearby {other} a similar vote was decided by only {old} ballots last year.
        {clerk}, the town clerk, said the lines were long in the morning.

        "People wanted something different this time," said {clerk}.
        Turnout was higher than anybody had expected.
    """
    brief = (
        f"{winner} has been elected mayor of {town} with {votes} votes after promising "
        + f"{plan}. "
        + (f"Rival {loser} demands a recount." if recount else f"Rival {loser} conceded.")
    )
    return cast.story(town, text, brief)


def results(cast: Cast) -> Story:
    town, firm, rival = cast.town(), cast.firm(), cast.firm()
    boss, analyst = cast.person(), cast.person()
    money, before, jobs = cast.number(20, 900), cast.number(20, 900), cast.number(100, 4000, 50)
    month, good = cast.month(), cast.chance(0.5)
    what, cause = ("profit", "strong demand") if good else ("loss", "high costs")
    blamed, praised = ("nobody", cause) if good else (cause, "the staff")
    jobs_line = cast.line(
        f"It wants to fill {jobs} new positions before the end of the year. / "
        f"Managers are looking for {jobs} additional workers."
        if good
        else f"{jobs} people will have to leave, the board decided. / "
        f"The board decided that {jobs} positions are no longer needed."
    )
    text = f"""
        {firm}, which has its headquarters in {town}, presented its books in {month}.
        / In {month} the books of {firm} were opened at its headquarters in {town}.
        They show a {what} of {money} million dollars.
        / At the bottom stands a {what} of {money} million dollars.
        {jobs_line}
        Chief executive {boss} spoke of {cause}.
        / {boss}, the chief executive, blamed {blamed} and praised {praised}.

        Its competitor {rival} had reported {before} million dollars in the spring.
        Shares of {rival} hardly moved on the news.

        "We did not see this coming," said {analyst}, who follows the industry.
        {analyst}, an analyst, called the figures a surprise.
    """
    brief = (
        f"{firm} of {town} earned {money} million dollars and will hire {jobs} workers, "
        f"according to chief executive {boss}."
        if good
        else f"{firm} of {town} lost {money} million dollars and will cut {jobs} jobs, "
        f"according to chief executive {boss}."
    )
    return cast.story(town, text, brief)


def ruling(cast: Cast) -> Story:
    town, firm, other = cast.town(), cast.firm(), cast.firm()
    judge, worker, lawyer = cast.person(), cast.person(), cast.person()
    money, old = cast.number(20, 950, 5), cast.number(3, 19)
    reason = cast.pick("unpaid overtime", "a faulty machine", "a broken contract", "polluted water")
    guilty, day = cast.chance(0.5), cast.day()
    text = f"""
        The case that {worker} brought against {firm} ended on {day} in {town}.
        / On {day} a court in {town} heard the end of a case between {worker} and {firm}.
        It was about {reason}.
        / At issue was {reason}.
        Judge {judge} found {"for" if guilty else "against"} {worker.last}.
        / To judge {judge} the claim was {"justified" if guilty else "baseless"}.
        The sum that was asked for stood at {money} thousand dollars.
        / {worker.last} had asked for {money} thousand dollars.

        A claim against {other} had been settled for {old} thousand dollars in the past.
        {other} was not part of the proceedings.

        "We will read the decision with care," said {lawyer}, a lawyer.
        {lawyer}, who spoke for the defence, left by the back door.
    """
    brief = (
        f"A judge in {town} ordered {firm} to pay {worker} {money},000 dollars over {reason}."
        if guilty
        else f"A judge in {town} cleared {firm} of a {money},000 dollar claim by {worker} "
        f"over {reason}."
    )
    return cast.story(town, text, brief)


def strike(cast: Cast) -> Story:
    """A wage dispute."""
    town, firm, other = cast.town(), cast.firm(), cast.firm()
    leader, manager = cast.person(), cast.person()
    workers, percent, days = cast.number(200, 5000, 20), cast.number(2, 12), cast.number(13, 60)
    old, solved = cast.number(61, 90), cast.chance(0.5)
    end = cast.line(
        f"Both sides shook hands at dawn, and wages go up by {percent} percent. / "
        f"At dawn the two sides settled on {percent} percent more pay."
        if solved
        else f"They ask for {percent} percent more pay, and talks have led to nothing. / "
        f"Talks about {percent} percent more pay have led to nothing."
    )
    text = f"""
        At the plant of {firm} in {town}, {workers} people put down their tools.
        / {workers} people at the {town} plant of {firm} put down their tools.
        That was {days} days ago.
        / The machines stood still for {days} days.
        {end}
        The union is led by {leader}, the company's side by {manager}.
        / {leader} speaks for the union, {manager} for the company.

        A walkout at {other} went on for {old} days some years back.
        Drivers of {other} honked as they went past the gates.

        "Bread has become dear," a welder said.
        Neighbours brought soup and firewood to the gates.
    """
    brief = (
        f"A strike by {workers} {firm} workers in {town} ended after {days} days with a "
        f"{percent} percent raise, said union leader {leader}."
        if solved
        else f"A strike by {workers} {firm} workers in {town} for a {percent} percent raise "
        f"continues after {days} days, said union leader {leader}."
    )
    return cast.story(town, text, brief)


def building(cast: Cast) -> Story:
    """A bridge, railway line or museum that is opened or delayed."""
    town, other = cast.town(), cast.town()
    mayor, architect = cast.person(), cast.person()
    what = cast.pick("bridge", "museum", "library", "station", "theatre", "hospital")
    cost, years, old = cast.number(12, 480), cast.number(2, 11), cast.number(481, 900)
    month, ready = cast.month(), cast.chance(0.5)
    end = cast.line(
        f"In {month} mayor {mayor} cut the ribbon. / Mayor {mayor} cut the ribbon in {month}."
        if ready
        else f"Mayor {mayor} had hoped for {month}, but the work is not finished. / "
        f"The work will not be finished in {month}, mayor {mayor} admitted."
    )
    text = f"""
        For {years} years cranes have stood where {town} wants its new {what}.
        / Cranes have stood around the new {what} of {town} for {years} years.
        The bill has grown to {cost} million dollars.
        / So far {cost} million dollars have been spent on it.
        The plans were drawn by {architect}.
        / {architect} is the architect of the {what}.
        {end}

        A {what} in {other} was given up after {old} drawings.
        Visitors from {other} come to look at the site every weekend.

        "It is bigger than I thought," said a boy with an ice cream.
        A brass band played although it drizzled.
    """
    brief = (
        f"{town} opened a {what} designed by {architect} after {years} years at a cost of "
        f"{cost} million dollars."
        if ready
        else f"The {cost} million dollar {what} designed by {architect} in {town} is delayed "
        f"after {years} years."
    )
    return cast.story(town, text, brief)


def school(cast: Cast) -> Story:
    """A new rule for schools."""
    town, other = cast.town(), cast.town()
    head, parent = cast.person(), cast.person()
    thing = cast.pick("phones", "homework", "uniforms", "sugary drinks", "early lessons")
    schools, pupils, old = cast.number(4, 40), cast.number(900, 9900, 50), cast.number(41, 95)
    month, ban = cast.month(), cast.chance(0.5)
    fate = (
        f"From {month} on, {thing} will no longer be allowed there. / "
        f"They will have to do without {thing} from {month} on."
        if ban
        else f"From {month} on, {thing} will be allowed again. / "
        f"They will have {thing} back from {month} on."
    )
    text = f"""
        There are {schools} schools in {town}, with {pupils} pupils.
        / {pupils} pupils go to the {schools} schools of {town}.
        {fate}
        The decision was made by {head}, who directs the school office.
        / {head}, who directs the school office, made the decision.
        A petition by {parent} had started the debate.
        / It was {parent} whose petition had started the debate.

        In {other} a trial of {old} days was stopped without much noise.
        Teachers in {other} are watching with interest.

        "I can live with that," a pupil with a red cap said.
        Some parents want to be asked the next time.
    """
    brief = (
        f"{head} bans {thing} for {pupils} pupils in {town} from {month} after a petition "
        f"by {parent}."
        if ban
        else f"{head} permits {thing} for {pupils} pupils in {town} from {month} after a "
        f"petition by {parent}."
    )
    return cast.story(town, text, brief)
