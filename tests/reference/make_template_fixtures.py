"""Writes fixtures/chat_templates.json: chat templates in our own wording of the
constructs that published ones use, with jinja2's output for many conversations;
and fixtures/template_features.json: what jinja2 makes of template_features.py.

Run with jinja2 3.1.6:  python tests/reference/make_template_fixtures.py
"""
import json
import pathlib
import time

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from template_features import FEATURES, VARIABLES


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
# Noon in the middle of a month: the same date wherever the tests run.
NOW = 1781524800
ENVIRONMENT.globals["strftime_now"] = lambda form: time.strftime(
    form, time.gmtime(NOW))

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

# For the templates in FAMILIES only.
MORE = {
    "reasoning and calls": [
        {"role": "user", "content": "Tide tables, please."},
        {"role": "assistant", "content": "", "reasoning_content":
            "\nLook it up.\n", "tool_calls": [
                {"id": "abcdefghi", "type": "function", "function": {
                    "name": "tide", "arguments": {"port": "Bodø", "days": [1, 2],
                                                  "exact": True}}},
                {"id": "jklmnopqr", "type": "function", "function": {
                    "name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "06:12 high"},
        {"role": "tool", "tool_call_id": "jklmnopqr",
         "content": [{"type": "text", "text": "rain"}]},
        {"role": "assistant", "content":
            "<think>\nHigh at six.\n</think>\n\nAt 06:12, in rain."},
        {"role": "user", "content": "/no_think And tomorrow?"}],
    "commands in the system's text": [
        {"role": "system", "content": "Be kind. /no_think\n"},
        {"role": "user", "content": [{"type": "text", "text": "Hi "},
                                     {"type": "image"}]},
        {"role": "assistant", "content": "Hello."}],
}
DOCUMENTS = [{"title": "Tides", "text": "High at six.", "doc_id": 1},
             {"title": "«Fog»", "text": "None <|end|> today.", "doc_id": "b"}]

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

# What the families' templates do, in words of our own.
FAMILIES = {}
FAMILIES["tools in the first turn, with a date"] = """{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools_in_first_turn is defined %}{%- set tools_in_first_turn = true %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "01 Jan 2020" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set intro = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}{%- set intro = "" %}{%- endif %}
{{- "<|h|>system<|/h|>\n\n" }}
{%- if builtin_tools is defined or tools is not none %}{{- "Tools may be called.\n" }}{%- endif %}
{%- if builtin_tools is defined %}{{- "Built in: " + builtin_tools | reject('equalto', 'shell') | join(", ") + "\n\n" }}{%- endif %}
{{- "Today: " + date_string + "\n\n" }}{{- intro }}{{- "<|e|>" }}
{%- if tools_in_first_turn and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first = messages[0]['content'] %}{%- set messages = messages[1:] %}
    {%- else %}{{- raise_exception("No first turn.") }}{%- endif %}
    {{- '<|h|>user<|/h|>\n\n' -}}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\n\n" }}{%- endfor %}
    {{- (first if first is string else first[0].text) + "<|e|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|h|>' + message['role'] + '<|/h|>\n\n' + (message['content'] if message['content'] is string else 'parts') | trim + '<|e|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("One call at a time.") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and call.name in builtin_tools %}
            {{- call.name + ".run(" }}{%- for key, v in call.arguments | items %}{{- key + '="' + (v | string) + '"' }}{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endfor %}{{- ")" }}
        {%- else %}
            {{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}{{- "}" }}
        {%- endif %}{{- "<|e|>" }}
    {%- else %}
        {{- "<|h|>result<|/h|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}{{- "<|e|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|h|>assistant<|/h|>\n\n' }}{%- endif %}
"""
FAMILIES["thinking of the last turn only"] = """{%- if tools %}
    {{- '<|s|>system\n' }}{%- if messages and messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
    {{- "# Tools\n<tools>" }}{%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}{{- "\n</tools><|e|>\n" }}
{%- elif messages and messages[0].role == 'system' %}{{- '<|s|>system\n' + messages[0].content + '<|e|>\n' }}{%- endif %}
{%- set ns = namespace(many=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.many and message.role == "user" and message.content is string and not(message.content.startswith('<result>') and message.content.endswith('</result>')) %}
        {%- set ns.many = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}{{- '<|s|>' + message.role + '\n' + content + '<|e|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thoughts = '' %}
        {%- if message.reasoning_content is string %}{%- set thoughts = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thoughts = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thoughts)) %}{{- '<|s|>' + message.role + '\n<think>\n' + thoughts.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}{{- '<|s|>' + message.role + '\n' + content }}{%- endif %}
        {%- if message.tool_calls %}
            {%- for call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\n' }}{%- endif %}
                {%- if call.function %}{%- set call = call.function %}{%- endif %}
                {{- '<call>\n{"name": "' }}{{- call.name }}{{- '", "arguments": ' }}
                {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}{{- '}\n</call>' }}
            {%- endfor %}
        {%- endif %}{{- '<|e|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|s|>user' }}{%- endif %}
        {{- '\n<result>\n' }}{{- content }}{{- '\n</result>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|e|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|s|>assistant\n' }}{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"""
FAMILIES["turns that have to alternate"] = """{%- if messages and messages[0]["role"] == "system" %}{%- set intro = messages[0]["content"] %}{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set users = turns | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in turns %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}{{- raise_exception("Roles must alternate.") }}{%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in turns %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == users[-1]) %}
            {{- "[TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}{{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}{{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}{{- "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and intro is defined %}{{- "[Q] " + intro + "\n\n" + message["content"] + "[/Q]" }}
        {%- else %}{{- "[Q] " + message["content"] + "[/Q]" }}{%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[CALLS] [" }}
        {%- for call in message.tool_calls %}
            {%- set out = call.function|tojson %}{{- out[:-1] }}
            {%- if not call.id is defined or call.id|length != 9 %}{{- raise_exception("Ids have nine characters.") }}{%- endif %}
            {{- ', "id": "' + call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token }}
    {%- elif message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}{%- set content = message.content.content %}{%- else %}{%- set content = message.content %}{%- endif %}
        {{- '[RESULT] {"content": ' + content|string + ", " }}{{- '"id": "' + message.tool_call_id + '"}[/RESULT]' }}
    {%- else %}{{- raise_exception("Unknown role " + message["role"]) }}{%- endif %}
{%- endfor %}"""
FAMILIES["types of tools as signatures"] = """{%- macro type_of(spec) %}
{%- set basic = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
{%- if basic[spec.type] is defined %}{{- basic[spec.type] }}
{%- elif spec.type == "array" %}{{- "list[" + type_of(spec['items']) + "]" }}
{%- elif spec.type == "object" %}
    {%- if spec.additionalProperties is defined %}{{- "dict[str, " + type_of(spec.additionalProperties) + ']' }}{%- else %}{{- "dict" }}{%- endif %}
{%- elif spec.type is iterable %}
    {{- "Union[" }}{%- for t in spec.type %}{{- type_of({"type": t}) }}{%- if not loop.last %}{{- "," }}{%- endif %}{%- endfor %}{{- "]" }}
{%- else %}{{- "Any" }}{%- endif %}
{%- endmacro %}
{%- macro extra(fields, known) %}
    {%- if fields is mapping %}{%- for key in fields if key not in known %}
        {%- if fields[key] is mapping or (fields[key] is sequence and fields[key] is not string) %}{{- '\n<' ~ key ~ '>' ~ (fields[key] | tojson | safe) ~ '</' ~ key ~ '>' }}
        {%- else %}{{- '\n<' ~ key ~ '>' ~ (fields[key] | string) ~ '</' ~ key ~ '>' }}{%- endif %}
    {%- endfor %}{%- endif %}
{%- endmacro %}
{%- for tool in tools or [] %}
    {%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}
    {{- tool.name + "(" }}
    {%- for name, spec in tool.parameters.properties|items %}{%- if spec %}{{- name + ": " + type_of(spec) }}{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endif %}{%- endfor %}{{- ")" }}
    {%- if tool.return is defined %}{{- " -> " + type_of(tool.return) }}{%- endif %}
    {{- " - " + tool.description }}
    {%- for name, spec in tool.parameters.properties|items %}{{- extra(spec, ['type', 'description']) }}{%- endfor %}
    {{- '\n' + tool.parameters.required | map('upper') | join('|') }}
{%- endfor %}
{%- for m in messages %}{%- if m.tool_calls %}{%- for call in m.tool_calls %}{%- set args = call.function.arguments %}{%- if args is mapping %}{%- for k, v in args.items() %}<{{ k }}>{{ v | tojson | safe if v is mapping or (v is sequence and v is not string) else v | string }}</{{ k }}>{%- endfor %}{%- endif %}{%- endfor %}{%- endif %}{%- endfor %}"""
FAMILIES["documents"] = """{%- if documents %}
{%- for document in documents %}
<doc id={{ document.doc_id }} n={{ loop.index }}>
{%- for key, value in document.items() if key != 'doc_id' %}
{{ key | title }}: {{ value }}
{%- endfor %}
</doc>{%- endfor %}
{%- endif %}
{%- set controls = controls if controls is defined else {} %}
{%- if 'citations' in controls and controls.citations %} cite {%- endif %}
{%- if controls['length'] is defined %} {{ controls['length'] }}{% endif %}
{%- for m in messages %}[{{ m.role }}]{% endfor %} {{ strftime_now('%B %d, %Y') }}"""
FAMILIES["parts, images and a prefix"] = """{{ bos_token }}
{%- if messages and messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}{%- set prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}{%- set prefix = messages[0]['content'][0]['text'] + '\n\n' -%}{%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}{%- set prefix = "" -%}{%- set turns = messages -%}{%- endif -%}
{%- for message in turns -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<t>' + role + '\n' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}{{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}{%- if item['type'] in ['image', 'image_url'] -%}{{ '<image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}
    {%- else -%}{{ raise_exception("Invalid content") }}{%- endif -%}
    {{ '</t>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<t>model\n' }}{%- endif -%}"""
FAMILIES["modes by a word"] = """{%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}
{%- if messages and messages[0].role == "system" -%}
    {%- set system = messages[0].content -%}
    {%- if "/no_think" in system -%}{%- set mode = "/no_think" -%}{%- elif "/think" in system -%}{%- set mode = "/think" -%}
    {%- else -%}{%- set mode = "/think" if enable_thinking else "/no_think" -%}{%- endif -%}
    {%- set custom = system.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- else -%}{%- set mode = "/think" if enable_thinking else "/no_think" -%}{%- endif -%}
Mode: {{ mode }}, {{ strftime_now("%d %B %Y") }}
{%- if custom %}: {{ custom }}{% endif -%}
{%- if xml_tools or tools -%}
    {%- set ns = namespace(text="Tools:\n<tools>\n") -%}
    {%- for tool in (xml_tools or tools)[:1] -%}{%- set ns.text = ns.text ~ (tool.function.name | string) ~ "\n" -%}{%- endfor -%}
    {%- set all = ns.text + "</tools>" -%}{{- all -}}
{%- endif -%}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}{{ "<u>" + content + "</u>" }}
    {%- elif message.role == "assistant" -%}
        {%- generation -%}{%- if mode == "/think" -%}{{ "<a>" + content.lstrip("\n") + "</a>" }}{%- else -%}{{ "<a><think></think>" + content.lstrip("\n") + "</a>" }}{%- endif -%}{%- endgeneration -%}
    {%- elif message.role == "tool" -%}{{ "<u>" + content + "</u>" }}{%- endif -%}
{%- endfor -%}"""
FAMILIES["typescript of a tool"] = """{%- macro show(spec, required, nullable=false) -%}
    {%- if spec.type == "array" -%}{%- if spec['items'] -%}{{- show(spec['items'], required) ~ "[]" }}{%- else -%}{{- "any[]" }}{%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping and spec.type[0] is defined -%}{{- spec.type | join(" | ") }}
    {%- elif spec.oneOf -%}{%- for variant in spec.oneOf -%}{{- show(variant, required) }}{%- if not loop.last %}{{- " | " }}{% endif -%}{%- endfor -%}
    {%- elif spec.type == "string" -%}{%- if spec.enum -%}{{- '"' + spec.enum|join('" | "') + '"' -}}{%- else -%}{{- "string" }}{%- if nullable %}{{- " | null" }}{%- endif -%}{%- endif -%}
    {%- elif spec.type in ("number", "integer") -%}{{- "number" }}
    {%- elif spec.type == "boolean" -%}{{- "boolean" }}
    {%- else -%}{{- "any" }}{%- endif -%}
{%- endmacro -%}
{%- for tool in tools or [] %}{%- set tool = tool.function %}
{{- "// " + tool.description + "\n" }}{{- "type " + tool.name + " = (_: {\n" }}
{%- for name, spec in tool.parameters.properties.items() %}
    {%- if spec %}
    {{- name }}{%- if name not in (tool.parameters.required or []) %}{{- "?" }}{%- endif -%}{{- ": " + show(spec, tool.parameters.required, nullable=true) }}
    {%- if spec.default is defined -%}{%- if spec.enum %}{{- ", // default: " + spec.default }}{%- elif spec.oneOf %}{{- "// default: " + spec.default }}{%- else %}{{- ", // default: " + spec.default|tojson }}{%- endif -%}{%- endif -%}
    {%- if not loop.last %}{{- ",\n" }}{%- else %}{{- "\n" }}{%- endif -%}
    {%- endif %}
{%- endfor %}{{- "}) => any;" }}
{%- endfor %}
{%- for m in messages %}{%- if loop.previtem is defined and loop.previtem.role == m.role %}same {% elif loop.nextitem is undefined %}end {% else %}{{ m.role[:1] }} {% endif %}{%- endfor %}"""
FAMILY_CONVERSATIONS = ["one question", "system first", "many turns",
                        "tool call"]
VARIANTS = [{"add_generation_prompt": True},
            {"add_generation_prompt": False, "tools": [TOOL]}]
FAMILY_VARIANTS = [
    {"add_generation_prompt": True, "tools": None, "documents": None},
    {"add_generation_prompt": True, "enable_thinking": False, "tools": [TOOL],
     "documents": DOCUMENTS, "builtin_tools": ["shell", "weather"],
     "controls": {"citations": True, "length": "short"}}]


def cases():
    """(template, conversation, its messages, other variables)"""
    for name in T:
        for kind, messages in CONVERSATIONS.items():
            for variant in VARIANTS:
                yield name, kind, messages, variant
    every = CONVERSATIONS | MORE
    for name in FAMILIES:
        for kind in FAMILY_CONVERSATIONS + list(MORE):
            for variant in FAMILY_VARIANTS:
                yield name, kind, every[kind], dict(variant, now_seconds=NOW)


def outcome(source, variables):
    """What a template gives, or why it fails while it runs."""
    template = ENVIRONMENT.from_string(source)
    try:
        return {"output": template.render(**variables)}
    except (jinja2.exceptions.TemplateError, TypeError, ValueError, LookupError,
            RuntimeError, ArithmeticError, AttributeError,
            AssertionError) as e:
        return {"fails": str(e)}


def write(name, **content):
    path = pathlib.Path(__file__).parent / "fixtures" / name
    path.write_text(json.dumps(
        {"jinja2": jinja2.__version__, **content},
        ensure_ascii=False, separators=(",", ":")) + "\n")
    print(name, len(content["rows"]), "rows,", path.stat().st_size, "bytes")


def main():
    rows = []
    templates = T | FAMILIES
    for name, kind, messages, variant in cases():
        variables = dict(messages=messages, bos_token="<s>", eos_token="</s>",
                         **variant)
        rows.append({"template": name, "conversation": kind,
                     "variables": variables,
                     **outcome(templates[name], variables)})
    write("chat_templates.json", templates=templates, rows=rows)
    write("template_features.json", variables=VARIABLES,
          rows=[{"template": source, **outcome(source, VARIABLES)}
                for source in FEATURES])


main()
