"""Writes fixtures/chat_templates.json: chat templates in our own wording of the
constructs that published ones use, with jinja2's output for many conversations.

Run with jinja2 3.1.6:  python tests/reference/make_template_fixtures.py
"""
import json
import pathlib

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    """{% generation %}: the text inside, unchanged."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(
            self.call_method("passed"), [], [], body).set_lineno(line)

    def passed(self, caller):
        return caller()


def tojson(value, ensure_ascii=False, indent=None, separators=None,
           sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent,
                      separators=separators, sort_keys=sort_keys)


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


ENVIRONMENT = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True,
    extensions=[Generation, jinja2.ext.loopcontrols])
ENVIRONMENT.filters["tojson"] = tojson
ENVIRONMENT.globals["raise_exception"] = refuse

TOOL = {"type": "function", "function": {
    "name": "weather", "description": "Says how the sky is <today> & \"now\"",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string", "description": "A tøwn"},
        "days": {"type": "integer", "enum": [1, 2, 3]},
        "exact": {"type": "boolean", "default": False}, "none": None}}}}

CONVERSATIONS = {
    "one question": [{"role": "user", "content": "Hello there"}],
    "system first": [
        {"role": "system", "content": "  Answer briefly.\n"},
        {"role": "user", "content": " What is 2+2? "}],
    "many turns": [
        {"role": "system", "content": "You are a guide."},
        {"role": "user", "content": "Where is the river?"},
        {"role": "assistant", "content": "Behind the hill.\n\nFollow the path."},
        {"role": "user", "content": "And the village — «Ålesund»?"},
        {"role": "assistant", "content": "<think>\nfar\n</think>\n\nFar away."},
        {"role": "user", "content": "Thanks 🙂"}],
    "assistant last": [
        {"role": "user", "content": "Count"},
        {"role": "assistant", "content": "one, two"}],
    "empty content": [{"role": "user", "content": ""}],
    "parts": [{"role": "user", "content": [
        {"type": "text", "text": "first"}, {"type": "text", "text": "second"}]}],
    "markup in content": [
        {"role": "user", "content": "<|im_end|>\n<|im_start|>system\n{{ x }} "
                                    "{% if %} \"quoted\" 'single' \\ back"}],
    "two users": [
        {"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "unknown role": [{"role": "wizard", "content": "Abracadabra"}],
    "tool call": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {
                "name": "weather",
                "arguments": {"city": "Zürich", "days": 2}}}]},
        {"role": "tool", "name": "weather", "tool_call_id": "c1",
         "content": "{\"sky\": \"clear\"}"}],
    "no messages": [],
}

T = {}
T["chatml"] = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are helpful.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + (message['content'] or '') | string + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""
T["dashes everywhere"] = """
{%- if messages and messages[0].role == 'system' -%}
    {%- set system = messages[0].content | trim -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set system = '' -%}
    {%- set rest = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- if system %}
[SYS] {{ system }} [/SYS]
{% endif -%}
{%- for m in rest -%}
    {%- if m.role == 'user' %} [Q] {{ m.content }} [/Q]
    {%- elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}
    {%- else %} ({{ m.role | upper }}) {{ m.content }}
    {%- endif -%}
{%- endfor -%}
"""
T["block trimming"] = """  {% if messages %}
  has messages
    {% for m in messages %}
      * {{ m.role }}
    {% endfor %}
  {% endif %}
	{# a comment
	of two lines #}
tail
  {%+ if true %}kept{% endif %}

end
"""
T["namespace flags"] = """{% set ns = namespace(seen=false, count=0, last='') %}
{% for m in messages %}
{% if m['role'] == 'user' %}{% set ns.seen = true %}{% set ns.count = ns.count + 1 %}{% endif %}
{% set ns.last = m['role'] %}
{% endfor %}
seen={{ ns.seen }} count={{ ns.count }} last={{ ns.last }}"""
T["alternation check"] = """{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate: ' + m['role']) }}{% endif %}{{ m['role'][0] | upper }}:{{ m['content'] }};{% endfor %}"""
T["macro"] = """{% macro turn(role, content='', end='<e>') -%}
<s>{{ role | capitalize }}
{{ content }}{{ end }}
{%- endmacro %}
{% for m in messages %}{{ turn(m.role, m.content if m.content is string else '?') }}{{ turn(m.role, end='.') }}
{% endfor %}"""
T["macro with recursion on parts"] = """{%- macro show(content) -%}
{%- if content is string -%}{{ content }}
{%- elif content is iterable and content is not mapping -%}
{%- for part in content -%}{%- if part.type == 'text' -%}{{ show(part.text) }}{%- if not loop.last %} {% endif -%}{%- endif -%}{%- endfor -%}
{%- elif content is none or content is undefined -%}
{%- else -%}{{ raise_exception('bad content') }}{%- endif -%}
{%- endmacro -%}
{%- for m in messages %}{{ m.role }}={{ show(m.content) }}|{% endfor -%}"""
T["tools as json"] = """{% if tools is defined and tools %}# Tools
{% for tool in tools %}{{ tool | tojson }}
{{ tool.function.parameters | tojson(indent=2) }}
{% endfor %}{% endif %}{% for m in messages %}{% if m.tool_calls is defined and m.tool_calls %}{% for call in m.tool_calls %}<call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</call>{% endfor %}{% else %}{{ m.role }}: {{ m.content }}{% endif %}
{% endfor %}"""
T["tools sorted and printed"] = """{% for tool in tools or [] %}{% set f = tool.function %}{% for name, spec in f.parameters.properties | dictsort %}{{ loop.index }}.{{ name }}: {{ spec }}
{% endfor %}{% for key, v in f.parameters.items() %}{{ key }}={{ v if v is string else v | length }},{% endfor %}{{ f.keys() | list | join('/') }}{% endfor %}"""
T["thinking split"] = """{% for m in messages %}{% if m.role == 'assistant' and '</think>' in (m.content or '') %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% elif m.role == 'assistant' %}{{ (m.content or '').rstrip() }}{% else %}{{ m.content | string | trim }}{% endif %}
{% endfor %}"""
T["reverse scan"] = """{% set ns = namespace(last=-1) %}{% for m in messages[::-1] %}{% set index = (messages | length - 1) - loop.index0 %}{% if ns.last < 0 and m.role == 'user' %}{% set ns.last = index %}{% endif %}{% endfor %}last user at {{ ns.last }}{% for m in messages %}{% if loop.index0 > ns.last %}; later {{ m.role }}{% endif %}{% endfor %}"""
T["loop variables"] = """{% for m in messages %}{{ loop.index }}/{{ loop.length }} {{ loop.revindex }} {{ loop.revindex0 }} {{ loop.first }} {{ loop.last }} {{ loop.previtem.role if loop.previtem is defined else '-' }} {{ loop.nextitem.role if not loop.last else '-' }} {{ loop.cycle('odd', 'even') }}
{% else %}nothing{% endfor %}"""
T["filtered loops"] = """{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.role }} {% else %}none{% endfor %}|{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ m.content }},{% endfor %}|{{ messages | map(attribute='role') | join('+') }}|{{ messages | rejectattr('role', 'in', ['user', 'system']) | list | length }}|{{ messages | map(attribute='role') | unique | sort | list }}"""
T["break and continue"] = """{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.role }};{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}"""
T["set blocks"] = """{% set intro %}
Hello {{ bos_token }}
{% endset %}
[{{ intro | trim }}]{% set a, b = 1, 'two' %}{{ a }}{{ b }}{% for x in [1, 2] %}{% set a = x %}{% endfor %}{{ a }}"""
T["arithmetic"] = """{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 0.1 + 0.2 }} {{ 1e20 }} {{ 1.0 }} {{ 5 == 5.0 }} {{ true + 1 }} {{ 3 > 2 > 1 }} {{ 'a' * 3 }} {{ 1 ~ 'x' ~ none }} {{ -2 ** 2 }} {{ 10 | float }} {{ '42' | int + 1 }} {{ 3.7 | int }} {{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ -5 | abs }}"""
T["printing"] = """{{ none }} {{ true }} {{ [1, 'a', none, 2.5, "it's", "q\\"'"] }} {{ {'k': [true], 'z': {}} }} {{ missing }}{{ 'x' if false }} {{ (1, 2) | list }} {{ 'tab\\there' }} {{ ['line\\nbreak'] }}"""
T["text methods"] = """{{ ' pad '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a,b,,c'.split(',') }}|{{ ' a  b '.split() }}|{{ 'a b c'.split(' ', 1) }}|{{ 'a.b.c'.rsplit('.', 1) }}|{{ 'abc'.startswith('ab') }}|{{ 'abc'.endswith(('x', 'c')) }}|{{ 'ABC'.lower() }}{{ 'abc'.upper() }}{{ 'hello world'.title() }}{{ 'hELLO'.capitalize() }}|{{ 'aXbX'.replace('X', '-') }}|{{ 'aXbX'.replace('X', '-', 1) }}|{{ 'abcabc'.find('c') }}|{{ 'abcabc'.count('bc') }}|{{ ','.join(['a', 'b']) }}|{{ '12'.isdigit() }}{{ ''.isdigit() }}|{{ 'l1\\nl2'.splitlines() }}|{{ 'prefix-x'.removeprefix('prefix-') }}"""
T["slices"] = """{{ 'abcdef'[1:3] }} {{ 'abcdef'[:-2] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[-3:] }} {{ [1,2,3,4][::2] }} {{ [1,2,3][5:] }} {{ 'æøå'[1] }} {{ 'æøå' | length }} {{ [1,2,3][-1] }} {{ [1,2,3][9] is defined }} {{ (messages | first).role if messages else 'none' }} {{ messages[-1]['role'] if messages else 'none' }}"""
T["tests"] = """{{ 1 is number }}{{ '1' is string }}{{ none is none }}{{ x is undefined }}{{ messages is defined }}{{ messages is sequence }}{{ {} is mapping }}{{ [] is iterable }}{{ 2 is even }}{{ 3 is odd }}{{ 9 is divisibleby 3 }}{{ 9 is not divisibleby(2) }}{{ true is true }}{{ false is false }}{{ 1 is integer }}{{ 1.5 is float }}{{ true is boolean }}{{ 'a' in 'cat' }}{{ 'k' in {'k': 1} }}{{ 3 not in [1, 2] }}{{ not x }}{{ 1 is eq 1 }}{{ 'a' is in ['a'] }}"""
T["defaults"] = """{{ missing | default('d') }} {{ '' | default('d') }} {{ '' | default('d', true) }} {{ none | default('d') }} {{ missing is defined and missing.x }} {{ date_string if date_string is defined else 'no date' }} {% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ add_generation_prompt }}"""
T["filters"] = """{{ ['b', 'A', 'c'] | sort }} {{ [3, 1, 2] | sort(reverse=true) }} {{ [1, 2, 3] | sum }} {{ [1, 5, 2] | max }} {{ [4, 2] | min }} {{ 'abc' | reverse }} {{ [1, 2] | reverse | list }} {{ 'abc' | first }}{{ 'abc' | last }} {{ 'a b' | replace(' ', '_') }} {{ 'x\\ny' | indent(2) }} {{ 'x\\ny' | indent(2, true) }} {{ {'b': 1, 'a': 2} | dictsort }} {{ {'a': 1} | items | list }} {{ [1, 2, 3, 4] | select('even') | list }} {{ [1, '', 2] | select | list }} {{ [1, 2, 1] | unique | list }} {{ ['a', 'b'] | map('upper') | join(', ') }} {{ 'ab' | list }} {{ '  x ' | trim }} {{ 5 | string + '!' }}"""
T["raw and comments"] = """{% raw %}{{ not evaluated }} {% if %}{% endraw %}{# gone #}|{#- gone with blanks -#} |
{% raw -%}
   kept {{ x }}
{%- endraw %}."""
T["generation tag"] = """{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"""
T["dict building"] = """{% set names = {'user': 'Human', 'assistant': 'Bot'} %}{% for m in messages %}{{ names.get(m.role, 'Other') }}:{{ names[m.role] | default('?') }} {% endfor %}{% set d = dict(a=1, b=[2]) %}{{ d }}{{ d.b[0] }}{{ d | length }}"""
T["conditional chain"] = """{% for m in messages %}{{ 'U' if m.role == 'user' else 'A' if m.role == 'assistant' else 'S' if m.role == 'system' else '?' }}{% endfor %} {% if messages | length > 3 and messages[0].role == 'system' or not messages %}long{% elif messages[0].content is string and messages[0].content | length == 0 %}empty{% else %}short{% endif %}"""
T["content parts or text"] = """{%- for message in messages %}
{{- '<|' + message.role + '|>\\n' }}
{%- if message.content is string %}{{ message.content }}
{%- elif message.content %}{%- for item in message['content'] | selectattr('type', 'equalto', 'text') %}{{- item['text'] + ('' if loop.last else '\\n') }}{%- endfor %}
{%- endif %}{{- '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n' }}{%- endif %}"""
T["range and nested loops"] = """{% for i in range(3) %}{% for j in range(i, 0, -1) %}{{ i }}{{ j }}{{ loop.index }} {% endfor %}{% endfor %}{{ range(2, 8, 3) | list }}"""
T["string literals"] = """{{ "double \\"q\\" 'single'" }} {{ 'a' 'b' }} {{ 'back\\\\slash' }} {{ '{{ not a tag }}' }} {{ '%}' }} {{ {'a': {'b': 1}}['a']['b'] }}"""
T["whitespace signs"] = """a
   {%- set x = 1 %}
   b {{- ' c ' -}} d
   {% set y = 2 -%}

   e {{ x }}{{ y }}
"""


def main():
    rows = []
    for name, source in T.items():
        for kind, messages in CONVERSATIONS.items():
            for variant in ({"add_generation_prompt": True},
                            {"add_generation_prompt": False, "tools": [TOOL]}):
                variables = dict(messages=messages, bos_token="<s>",
                                 eos_token="</s>", **variant)
                row = {"template": name, "conversation": kind,
                       "variables": variables}
                try:
                    row["output"] = ENVIRONMENT.from_string(source).render(
                        **variables)
                except jinja2.exceptions.TemplateError as e:
                    row["fails"] = str(e)
                except TypeError as e:
                    row["fails"] = str(e)
                rows.append(row)
    path = pathlib.Path(__file__).parent / "fixtures" / "chat_templates.json"
    path.write_text(json.dumps(
        {"jinja2": jinja2.__version__, "templates": T, "rows": rows},
        ensure_ascii=False, separators=(",", ":")) + "\n")
    print(len(T), "templates,", len(rows), "rows,", path.stat().st_size, "bytes")


main()
