"""The look and the skeleton that all pages share: templates, style, pictures inside a page.

base.html     the skeleton of a page: one file, its style inside, nothing from elsewhere
macros.html   sections, lists, tables, pictures, charts
style.css     the look, of screens, phones, the dark and paper
rendering     templates -> pages, everything escaped
inline        matplotlib's SVG and PNG as parts of a page: the one place that makes markup
styles        colours and lines of arms, and the style of figures
"""
