"""Small templates, one or a few for each feature of Jinja that chat templates
may use, and for each error that one raises while it runs.
"""

VARIABLES = {
    "words": ["b", "A", "c"], "name": "Ada <x>", "n": 42, "r": 3.14159,
    "empty": "", "mixed": "ÄÖ straße ΟΔΟΣ ﬁ", "spaced": "\u3000 a\u00a0b \u2003",
    "rows": [{"role": "user", "n": 2}, {"role": "Tool", "n": 1},
             {"role": "tool", "n": 3}, {"n": 4}],
    "tree": [{"t": "a", "kids": [{"t": "b", "kids": []},
                                 {"t": "c", "kids": [{"t": "d", "kids": []}]}]},
             {"t": "e", "kids": []}],
    "lines": "one\r\ntwo\n\nthree", "unused": None}

FEATURES = []


def each(pattern, *values):
    FEATURES.extend(pattern.replace("@", value) for value in values)


# printf-style formatting
each("{{ @ }}",
     "'%s and %s' % (name, n)", "'%s' % name", "'%s' % [1, 'a']", "'%s' % ()",
     "'%s|%r' % (none, 'a')", "'%d%%' % 50", "'%d' % 3.99", "'%d' % true",
     "'%i %u' % (1, -2)", "'%5d|%-5d|%05d|%+d|% d' % (1, 2, -3, 4, 5)",
     "'%x %X %o %#x %#X %#o' % (255, 255, 8, 255, 255, 8)",
     "'%.3d|%08.4d|%#.3x' % (5, -5, 5)", "'%f %.2f %.0f %8.3f|%-8.1f|'"
     " % (r, r, 2.5, r, r)", "'%e %.1e %E %g %G' % (12345.678, 0.00012, 1.0,"
     " 1e20, 0.00001)", "'%g %g %g %.3g' % (100000.0, 1000000.0, 0.0001,"
     " 1234.5)", "'%s %5s|%-5s|%.2s|%5.1s|' % ('a', 'b', 'c', 'def', 'ghi')",
     "'%c%c' % ('a', 66)", "'%(a)s-%(b)05.1f' % {'a': 1, 'b': 2}",
     "'%(a)s' % {'a': 'x', 'c': 2}", "'%*d|%-*d|%.*f' % (5, 1, 5, 2, 2, r)",
     "'%5s' % missing", "'%s' % missing", "'x' % []", "'x' % {}", "'%ld' % 5",
     "'%05s' % 'a'", "'%+.1f' % 2", "'%F' % (r * 1e200 * 1e200)", "'æ%5sø' % 'å'",
     "7 % 4", "n % 5 == 2", "'%s, ' * 2 % (1, 2)",
     "'%d' % 'x'", "'%s %s' % (1,)", "'%s' % (1, 2)", "'%s %s' % 1", "'x' % 1",
     "'x' % 'y'", "'%(a)s' % 1", "'%(a)s' % {'b': 1}", "'%(a)s %s' % {'a': 1}",
     "'%y' % 1", "'%' % 1", "'%(a' % {'a': 1}", "'%x' % 1.5", "'%c' % 'ab'",
     "'%*d' % ('a', 1)", "'%.2f' % 'a'", "7 % 'a'", "[1] % 2", "missing % 2",
     "'%d' % none", "'%s%%%s' % ('a', 'b')", "'100%'", "'100%' % ()")

# the filter format
each("{{ @ }}",
     "'%s=%s' | format('a', 1)", "'%05.2f' | format(r)", "'%s' | format(name)",
     "'%(x)s/%(y)d' | format(x='a', y=2)", "'plain' | format", "n | format",
     "'%s' | format", "'a' | format(1)", "'%s' | format(1, a=2)",
     "['%s!', '%s?'] | map('format', 'a') | join")

# str.format
each("{{ @ }}",
     "'{} and {}'.format(name, n)", "'{0}{1}{0}'.format('a', 'b')",
     "'{a}-{b}'.format(a=1, b='x')", "'{}{x}'.format(1, x=2)",
     "'{{}} {{{}}}'.format(1)", "'{0.role}{0[n]}'.format(rows[0])",
     "'{0[1]}{1[x]}'.format(words, {'x': 1})", "'{!r}|{!s}'.format('a', 'b')",
     "'{:>5}|{:<5}|{:^5}|{:^6}|{:*^5}|{:.2}'.format('a', 'b', 'c', 'd', 'e',"
     " 'fgh')", "'{:05d}|{:+d}|{: d}|{:5}|{:<5}|{:^5}|{:=+5}'.format(1, 2, 3,"
     " 4, 5, 6, 7)", "'{:,} {:_} {:,.2f} {:010,} {:09,}'.format(1234567,"
     " 1234567, 1234.5, 1234, 1234)", "'{:b} {:#b} {:o} {:#x} {:X} {:_x}'"
     ".format(5, 5, 8, 255, 255, 1048576)", "'{:c}'.format(65)",
     "'{:.2f} {:e} {:g} {:.1%} {:.3} {}'.format(r, r, r, 0.256, r, r)",
     "'{:.3} {:.3} {:.2} {:g}'.format(1234.0, 0.0, 10.0, 1e16)",
     "'{:08.2f} {:+.1f} {:<8.1f}| {:^9.1f}|'.format(-2.5, 2.0, 2.0, 2.0)",
     "'{:{}}|{:{w}.{p}f}'.format('a', 4, r, w=8, p=2)", "'{}'.format(none)",
     "'{} {} {}'.format([1, 'a'], {'k': 1}, true)", "'{:5}|{:d}'.format(true,"
     " true)", "'{:>4}'.format('åß')", "'{}'.format(missing)",
     "'{0.nothing}'.format(n)", "'{0.__class__}'.format(n)",
     "'{x}'.format_map({'x': 1})", "'{:05}|{:<05}|{:x<5}'.format('a', 1, 2)",
     "'{:f}'.format(r * 1e200 * 1e200)", "'{:%}'.format(1)", "'{:n}'.format(12)",
     "'{:s}'.format('a')", "'{:f}'.format(2)", "'{:é>4}'.format(1)", "''.format()",
     "'{} {0}'.format(1)", "'{0} {}'.format(1)", "'{}'.format()",
     "'{a}'.format()", "'{:d}'.format('x')", "'{:d}'.format(1.5)",
     "'{:s}'.format(1)", "'{'.format()", "'}'.format()", "'{0'.format(1)",
     "'{:5}'.format(none)", "'{:5}'.format([1])", "'{:=5}'.format('a')",
     "'{:+}'.format('a')", "'{:,}'.format('a')", "'{:.2d}'.format(1)",
     "'{!x}'.format(1)", "'{:{:{:{}}}}'.format(1, 2, 3, 4)", "'{.a}'.format(1)",
     "'{0.}'.format(1)", "'{0[}'.format(1)", "'{0[a]b}'.format({'a': 1})",
     "'{:5z}'.format(1)", "'{:+c}'.format(65)", "'{:,x}'.format(1)",
     "'{!r'.format(1)", "'{a{}}'.format(1)", "'{x}'.format_map(1)")

# escape and Markup
each("{{ @ }}",
     "name | e", "name | escape", "name | e | e", "'\"\\'&' | e", "5 | e",
     "none | e", "missing | e", "['<'] | e", "name | forceescape",
     "name | e | forceescape", "name | safe", "(name | safe) + '<'",
     "'<' + (name | safe)", "'<' ~ (name | safe)", "('<' ~ (name | safe)) + '<'",
     "[name | safe]", "('%s<' | safe) % '<'", "('%s' | safe) % ['<']",
     "('%r' | safe) % '<'", "('%5s|' | safe) % '<'", "('%d' | safe) % 3",
     "'%s' % (name | safe)", "('{}' | safe).format('<')",
     "('{}' | safe).format('<' | safe)", "('{:>3}' | safe).format('<')",
     "('{:>3}' | safe).format('<' | safe)", "(',' | safe).join(['<', 'b'])",
     "',' .join(['<' | safe, '>'])", "('a' | safe).replace('a', '<')",
     "'a<' | e | replace('&', '<')", "('<' | safe) * 2 + '<'",
     "(('<' | e)[0:2]) + '<'", "('a b' | safe).split()[0] + '<'",
     "('a' | safe).upper() + '<'", "('a' | safe).center(5, '-') + '<'",
     "('a' | safe) == 'a'", "('a' | safe) in ['a']", "{'a': 1}['a' | safe]",
     "('a' | safe) | tojson", "('a' | safe).ljust(3, '<')")
each("{{ ('<' | e@) is escaped }}", "", " | trim", " | upper", " | string",
     " | title", " | replace('a', 'b')", " | join", " | indent", " | list | first",
     " | last", " | reverse", " | center(9)", " | default('')", " ~ ''", " + ''",
     " | truncate(9)", " | format")

# lists
each("{{ @ }}",
     "range(7) | batch(3) | list", "range(7) | batch(3, '-') | list",
     "[] | batch(3) | list", "range(3) | batch(9, none) | list",
     "range(7) | slice(3) | list", "range(7) | slice(3, '-') | list",
     "[] | slice(2) | list", "'abcd' | batch(2) | list", "range(3) | batch(0)"
     " | list", "range(3) | slice(0) | list",
     "rows[:3] | groupby('role')", "(rows[:3] | groupby('role'))[0].grouper",
     "(rows[:3] | groupby('role'))[1].list | length", "rows | groupby('n')"
     " | map(attribute='grouper') | list", "rows[:3] | groupby('role',"
     " case_sensitive=true) | map('first') | list", "rows | groupby('role',"
     " default='none') | map('first') | list", "rows | groupby('role')",
     "rows | sort(attribute='n') | map(attribute='n') | list",
     "rows[:3] | sort(attribute='role,n') | map(attribute='n') | list",
     "rows | sort(reverse=true, attribute='n') | map(attribute='n') | list",
     "words | sort(case_sensitive=true)", "words | sort(true)",
     "[3, 'a'] | sort", "words | unique | list", "['a', 'A'] | unique | list",
     "['a', 'A'] | unique(true) | list", "rows[:3] | unique(attribute='role')"
     " | map(attribute='n') | list", "words | min", "words | max",
     "words | min(case_sensitive=true)", "rows | max(attribute='n')",
     "[] | min", "rows | sum('n')", "[[1], [2]] | sum(start=[])",
     "[0.1, 0.2, 1] | sum", "rows | sum(attribute='n', start=10)", "words | sum",
     "rows | map(attribute='role', default='?') | list",
     "rows | map('length') | list", "[1, 2] | map('string') | list",
     "rows | selectattr('role', '==', 'user') | list", "[1, 2, 3]"
     " | select('>', 1) | list", "[1, 2, 3] | reject('<=', 2) | list",
     "[1, 2, 3] | select('!=', 2) | list", "rows | selectattr('role') | list"
     " | length", "rows | map(attribute='role') | select('defined') | list",
     "rows | rejectattr('role', 'defined') | list", "words | map('upper') | list",
     "{'b': 1, 'A': 2} | dictsort", "{'b': 1, 'a': 2} | dictsort(by='value')",
     "{'b': 1, 'A': 2} | dictsort(true)", "{'b': 1, 'a': 2} | dictsort(false,"
     " 'key', true)", "{'b': 1} | dictsort(by='x')", "words | join(', ', 'x')",
     "rows | join('/', attribute='n')", "words | first", "words | last",
     "[1, 2] + [3]", "(1, 2) + (3,)", "[1] + (2,)", "[1, 2] * 2", "(1,) * 2",
     "(1, 2, 3)[1:]", "[1, 2, 3][none::-1]", "[1, 2, 3][:none:-1]",
     "'æøå'[::2]", "'æøå'[-2:]", "'æøå'[1]", "'æøå'[-4] is defined",
     "'æøå' | first", "'æøå' | last", "'æøå' | reverse", "'' | first", "[1, 2][true]", "[1, 2, 1].count(1)", "[1, 2].index(2)",
     "[1].index(2)", "[1].append(2)", "[1].pop()", "[].extend([1])",
     "{}.update({'a': 1})", "{'a': 1}.pop('a')", "{}.setdefault('a', 1)",
     "{}.clear()", "[2, 1].sort()", "[2, 1].reverse()", "[1].insert(0, 1)",
     "[1].remove(1)", "{'a': 1}.popitem()", "[1].copy() + [2]",
     "{'a': 1}.copy()", "name.append('x')", "[1].upper()")

# dicts
each("{{ @ }}",
     "{1: 'a', 2: 'b'}", "{1: 'a'}[1]", "{1: 'a'}['1'] is defined",
     "{true: 'a', false: 'b'}[n == 42]", "{none: 'x'}[none]", "{1.5: 2}[1.5]",
     "{1: 2, none: 3, true: 4, 1.5: 5}", "{(1, 'a'): 2}[(1, 'a')]",
     "{1: 'a'} | tojson", "{true: 1, none: 2, 1.5: 3, 'a': 4} | tojson",
     "{(1, 2): 1} | tojson", "{1: 'a'}.get(1)", "{1: 'a'}.get(2, 'z')",
     "{2: 'a', 1: 'b'} | dictsort", "{2: 'a', 1: 'b'} | list", "1 in {1: 2}",
     "'1' in {1: 2}", "{1: 2} == {1.0: 2}", "{1: 2}.items() | list",
     "{[1]: 2}", "{{}: 2}", "{2: 1, 'a': 1} | dictsort",
     "{'b': 1, 'a': 2} | tojson(sort_keys=true)", "{2: 1, 1: 2}"
     " | tojson(sort_keys=true)", "dict([('a', 1), ('b', 2)])",
     "dict({'a': 1}, b=2)", "dict([(1, 2)])", "dict([1])", "dict(1)",
     "{'a': [1, {'b': 2}]} | tojson(indent=2)", "{'a': 'é'} | tojson(true)",
     "'é\U0001F642\x7f' | tojson(ensure_ascii=true)", "[1, 2]"
     " | tojson(separators=(',', ':'))", "{'a': 1} | tojson(separators=(',',"
     " ':'), indent=1)", "[1.5, 1e20, -0.0] | tojson", "(1, 2) | tojson",
     "missing | tojson", "'a' | tojson(unknown=1)")
each("{% set ns = namespace(@) %}{{ ns.a }}", "a=1", "{'a': 1}",
     "[('a', 1)], b=2", "1")

# text filters
each("{{ @ }}",
     "name | attr('x') is defined", "rows[0] | attr('role') is defined",
     "missing | attr('x')", "'a b  c-d' | wordcount", "'' | wordcount",
     "mixed | wordcount", "'ab' | center(7)", "'abc' | center(6)",
     "'é' | center(3)", "'ab' | center(1)", "'foo bar baz qux' | truncate(9)",
     "'foo bar baz qux' | truncate(9, true)", "'foo bar baz qux'"
     " | truncate(11)", "'foo bar baz qux' | truncate(11, false, '..', 0)",
     "'foo bar' | truncate(2)", "'x' * 300 | string | truncate",
     "'foobarbaz' | truncate(5, leeway=0)", "'a b/ä?' | urlencode",
     "{'a b': 'c&', 'd': 1} | urlencode", "[('a', '/')] | urlencode",
     "5 | urlencode", "lines | indent", "lines | indent(2, true)",
     "lines | indent(2, blank=true)", "lines | indent('> ', true, true)",
     "'' | indent(2, true)", "'a\\n' | indent", "mixed | lower", "mixed | upper",
     "mixed | title", "mixed | capitalize", "mixed.title()", "mixed.swapcase()",
     "mixed.capitalize()", "'ÉCOLE'.lower() ~ 'école'.upper()",
     "\"they're HERE-now (x1y\" | title", "\"they're HERE-now (x1y\".title()",
     "spaced | trim", "spaced.strip()", "spaced.split()", "'éaé'.strip('é')",
     "'àxà'.strip('é')", "'xaé' | trim('éx')", "spaced | length",
     "name | replace('A', 1)", "name | replace('a', '-', 1)", "n | replace(4,"
     " 5)", "'aXbX' | replace('X', '')", "'ab' | replace('', '-')",
     "'0x1f' | int(0, 16)", "'0x1f' | int(base=16)", "'101' | int(base=2)",
     "'zz' | int(7, 36)", "'1_000' | int", "'x' | int(-1)", "' 12 ' | int",
     "'1e3' | int", "'-5' | int", "'+5' | float", "'1.5x' | float(2.5)",
     "true | int", "none | int", "5 | round", "2.5 | round", "3.5 | round",
     "42.55 | round(1)", "2.675 | round(2)", "2.5 | round(0, 'ceil')",
     "1.25 | round(1, 'floor')", "-2.5 | round(method='floor')", "true | abs",
     "'a' | abs", "'a' | upper(1)", "'a' | trim(x=1)", "'a' | round",
     "name is filter", "'upper' is filter", "'odd' is test", "name is lower",
     "'é' is lower", "'É' is upper")

# text methods
each("{{ @ }}",
     "'a.b.c'.partition('.')", "'a.b.c'.rpartition('.')", "'a'.partition('.')",
     "'a'.rpartition('.')", "'a'.partition('')", "'5'.zfill(3)", "'-5'.zfill(4)",
     "'+5'.zfill(4)", "'abc'.zfill(2)", "'a'.zfill(-1)", "'a'.ljust(3) ~ '|'",
     "'a'.rjust(3, '*')", "'ab'.center(5, '*')", "'abc'.center(6, '*')",
     "'a'.center(4)", "'é'.ljust(3, 'ø')", "'a'.ljust(3, 'xy')",
     "'a'.ljust('x')", "'a'.islower()", "'A1'.isupper()", "'1'.isupper()",
     "''.islower()", "'É'.isupper()", "'Ab Cd'.istitle()", "'ab'.istitle()",
     "'é'.isalpha()", "'aé1'.isalnum()", "'a b'.isalnum()", "'12'.isdecimal()",
     "'²'.isdigit()", "'²'.isdecimal()", "'½'.isnumeric()", "'٣'.isdigit()",
     "'\u3000 '.isspace()", "'a'.isspace()", "'aé'.isascii()", "'a'.isascii()",
     "'abcabc'.rfind('c')", "'abcabc'.find('c', 3)", "'abcabc'.find('a', 1, 3)",
     "'abcabc'.rindex('b')", "'abc'.index('x')", "'abc'.rindex('x')",
     "'æbæb'.find('b', 2)", "'abcabc'.count('b', 2)", "'abc'.count('')",
     "'abc'.startswith('b', 1)", "'abc'.endswith('b', 0, 2)",
     "'abc'.startswith(('x', 'a'))", "'abc'.startswith(['a'])",
     "'a,b,c'.rsplit(',', 1)", "' a  b  c '.split(none, 1)",
     "' a  b  c '.rsplit(none, 1)", "' a b '.split(none, 0)",
     "' a b '.split(none, 5)", "' a b '.rsplit(none, 0)", "'a b c'.rsplit(maxsplit=1)",
     "'aaa'.rsplit('aa')", "'aaa'.split('aa')", "lines.splitlines()",
     "lines.splitlines(true)", "'a\u2028b\x0bc'.splitlines()",
     "'a'.split('')", "','.join(words)", "','.join([1])", "','.join('abc')",
     "'aXbX'.replace('X', '-', 1)", "'aBc'.swapcase()", "'a'.strip(1)",
     "'ab'.removeprefix('a')", "'ab'.removesuffix('b')", "'a'.split(x=1)",
     "'a'.nothing is defined", "'\\x41\\u00e9\\101\\U0001F642\\q\\0' | tojson",
     "rows.0.n ~ tree.0.kids.1.t", "[[1, 2]].0.1")

# with, call, filter, set
FEATURES += [
    "{% with a=1, b=n %}{{ a }}{{ b }}{% set c = 3 %}{{ c }}{% endwith %}"
    "{{ a }}{{ c }}",
    "{% set a = 7 %}{% with a=1, b=a %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% with %}{% set a = 1 %}{{ a }}{% endwith %}{{ a }}",
    "{% for x in words %}{% with y=x %}{% if y == 'A' %}{% continue %}"
    "{% endif %}{{ y }}{{ loop.index }}{% endwith %}{% endfor %}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}x{{ n }}"
    "{% endcall %}",
    "{% macro m() %}{{ caller(1) }}{{ caller(2, 3) }}{% endmacro %}"
    "{% call(a, b=5) m() %}{{ a }}-{{ b }} {% endcall %}",
    "{% macro m(t) %}<{{ t }}>{{ caller(t) }}{% endmacro %}{% for w in words %}"
    "{% call(x) m(w) %}{{ x }}{{ w }}{{ loop.index }}{% endcall %}{% endfor %}",
    "{% macro m() %}{{ 'with' if caller else 'without' }}{% endmacro %}"
    "{{ m() }}{% call m() %}{% endcall %}",
    "{% macro a() %}({{ caller() }}){% endmacro %}{% macro b() %}"
    "{% call a() %}{{ n }}{% endcall %}{% endmacro %}{{ b() }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro m() %}1{% endmacro %}{% call m() %}x{% endcall %}",
    "{% macro m(caller=none) %}{{ caller() }}{% endmacro %}{% call m() %}x"
    "{% endcall %}",
    "{% macro m() %}{{ caller(1) }}{% endmacro %}{% call m() %}x{% endcall %}",
    "{% macro m() %}{% set z = 1 %}{{ caller() }}{% endmacro %}{% call m() %}"
    "{{ z }}{% set q = 2 %}{{ q }}{% endcall %}{{ q }}",
    "{% macro m(x) %}{{ x }}{{ varargs }}{{ kwargs }}{% endmacro %}"
    "{{ m(1, 2, 3, z=4) }}{{ m(x=1) }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(1, z=4) }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(1, x=4) }}",
    "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(x, y=x) %}{{ x }}{{ y }}{% endmacro %}{{ m(1) }}",
    "{% macro m(x) %}{{ x is defined }}{% endmacro %}{{ m() }}",
    "{% macro m(a, b, c) %}{{ a }}{{ b }}{{ c }}{% endmacro %}"
    "{{ m(*[1, 2], **{'c': 3}) }}{{ m(1, *[2, 3]) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**1) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(a=1, **{'a': 2}) }}",
    "{% macro m() %}{{ n }}{% endmacro %}{% set f = m %}{{ f() }}{{ m.x }}",
    "{% macro go(f, x) %}{{ f(x) }}{% endmacro %}{% macro p(x) %}<{{ x }}>"
    "{% endmacro %}{{ go(p, 1) }}",
    "{% for i in [1, 2] %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}"
    "{% endfor %}",
    "{% macro out(x) %}{% macro inner() %}{{ x }}{% endmacro %}{{ inner() }}"
    "{% endmacro %}{{ out(5) }}",
    "{% filter upper %}a{{ n }}{{ 'b' }}{% endfilter %}",
    "{% filter upper | replace('A', 'x') | trim %} a{% set q = 1 %}{% endfilter %}"
    "{{ q }}",
    "{% filter indent(2, true) %}a\nb{% endfilter %}",
    "{% filter e %}<{{ '>' }}{% endfilter %}",
    "{% set a | upper | replace('X', 'y') %}x{{ n }}{% endset %}{{ a }}",
    "{% set a %}{% set b = 1 %}x{% endset %}{{ b }}|{{ a }}",
    "{% generation %}{% set b = 1 %}{{ b }}{% endgeneration %}{{ b }}",
    "{% for x in [] %}{% else %}{% set q = 1 %}{{ q }}{% endfor %}{{ q }}",
    "{% set x = missing %}{{ x() }}", "{% set x = 5 %}{{ x() }}",
    "{% for x in 1, 2 %}{{ x }}{% endfor %}",
    "{% for x in words | batch(2) %}{{ x | join }};{% endfor %}",
    "{% for key, items in rows[:3] | groupby('role') %}{{ key }}:"
    "{{ items | map(attribute='n') | join(',') }};{% endfor %}",
]

# loops
FEATURES += [
    "{% for x in tree recursive %}{{ loop.depth }}{{ x.t }}{% if x.kids %}"
    "({{ loop(x.kids) }}){% endif %}{% endfor %}",
    "{% for x in tree recursive %}{{ loop.depth0 }}{{ loop.index }}"
    "{{ loop(x.kids) | upper }}{{ x.t }}{% else %}-{% endfor %}",
    "{% for x in tree if x.t != 'c' recursive %}{{ x.t }}{{ loop(x.kids) }}"
    "{% endfor %}",
    "{% for x in tree recursive %}{{ n }}{% set up = loop %}{% for y in x.kids %}"
    "{{ y.t }}{{ up(y.kids) }}{% endfor %}{% endfor %}",
    "{% for x in tree recursive %}{{ loop.cycle('a', 'b') }}"
    "{{ loop(x.kids) if x.kids }}{% if loop.index == 2 %}{% break %}{% endif %}"
    "{{ x.t }}{% endfor %}",
    "{% for x in words %}{{ loop([2]) }}{% endfor %}",
    "{% for x in tree recursive %}{{ loop(5) }}{% endfor %}",
    "{% for x in tree recursive %}{{ loop() }}{% endfor %}",
    "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}",
    "{% for x in rows %}{{ loop.changed(x.role, 1) }} {% endfor %}",
    "{% for x in words %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}"
    "{% endfor %}",
    "{% for x in words %}{{ loop.previtem is defined }}"
    "{{ loop.nextitem is defined }}{% endfor %}",
    "{% for x in words %}{{ loop.cycle() }}{% endfor %}",
    "{% for x in words %}{{ loop.nothing }}{% endfor %}",
    "{% for x in words %}{% set l = loop %}{{ l.index }}{% endfor %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.current }}{{ c.next() }}"
    "{{ c.next() }}{{ c.reset() }}{{ c.next() }}",
    "{% set c = cycler('odd', 'even') %}{% for x in words %}{{ c.next() }} "
    "{% endfor %}",
    "{% set c = cycler() %}",
    "{% set j = joiner() %}{% for x in words %}{{ j() }}{{ x }}{% endfor %}",
    "{% set j = joiner(' | ') %}{{ j() }}a{{ j() }}b{{ j() }}c",
    "{% set ns = namespace(j=joiner('-')) %}{% set j = ns.j %}{{ j() }}{{ j() }}",
    "{{ range(3, 0, -1) | list }}{{ range(true) | list }}", "{{ range() }}",
    "{{ range(1.5) }}",
]
