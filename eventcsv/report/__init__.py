"""What happened, for people: a page that needs nothing but a browser.

`model` is what a report holds, `collect` gathers it, `history` is what happened to each PO, `timeline` what happened
when, `grouping` puts messages together that say the same, and `page` makes the HTML of it.
"""
