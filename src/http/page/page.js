'use strict';
// Draws what the server has drawn, again, from /status: the same texts in the same elements as src/http/page.rs.
const POLL = 500, LANES = 8, SPAN_MIN = 10000, LANE = 46;
const $ = id => document.getElementById(id);
const names = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };
const unsafe = /[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\ufeff\u2028-\u202e\u2066-\u2069]/g;
const safe = text => String(text).replace(unsafe, c => names[c] || `\\u{${c.codePointAt(0).toString(16)}}`);

function el(tag, attributes, ...children) {
  const drawn = /^(svg|rect|text|title)$/.test(tag);
  const node = drawn ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const colour = name => 'c' + [...name].reduce((sum, c) => (sum * 31 + c.codePointAt(0)) % 65521, 7) % 8;
const clock = at => at.slice(0, 19).replace('T', ' ');
function span(ms) {
  const s = Math.floor(ms / 1000), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  return d ? `${d} d ${h % 24} h` : h ? `${h} h ${m % 60} min` : m ? `${m} min ${s % 60} s` : `${s} s`;
}
const facts = pairs => el('dl', {}, ...pairs.filter(([, value]) => value != null)
  .map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, safe(value)))));
const title = (text, count) => el('h2', {}, text, ...(count == null ? [] : [` (${count})`]));

function leader({ leader: l, obstacle, store }) {
  if (!l) return [title('Leader'), el('p', { class: 'name none' }, 'No leader'),
    el('p', { class: 'soft' }, obstacle == null ? 'No candidate leads this boundary now.' : safe(obstacle))];
  const lease = l.lease_left_ms == null || !l.ttl_ms ? [] : [el('svg', { class: 'lease', height: 10 },
    el('rect', { class: 'track', width: '100%', height: 10, rx: 5 }), el('rect', { id: 'left', width: `${Math.min(100, l.lease_left_ms * 100 / l.ttl_ms)}%`, height: 10, rx: 5 }))];
  return [title('Leader'), el('p', { class: 'name' }, safe(l.name)),
    el('p', { class: 'soft' }, safe(l.address ?? l.host ?? 'no address')), ...lease,
    el('p', { class: 'soft', id: 'lease' }, lease.length ? '' : noLease(store)),
    facts([['Term', l.term], ['Since', l.since && clock(l.since) + ' UTC'], ['Id', l.id]])];
}
const noLease = store => ['file', 'always'].includes(store) ? 'No lease: the leader holds it to its end.' : 'Its lease is not known here.';
function self({ self: s }) {
  const runs = s.running ? `runs here, pid ${s.pid}` : 'does not run here';
  return [title('This candidate'), el('p', { class: 'name' }, safe(s.name)),
    el('p', {}, el('span', { class: `chip ${s.state}` }, s.state.replace('_', ' '))), facts([['Command', runs], ['Id', s.id]])];
}
function others({ candidates, leader: l, self: s }) {
  if (!candidates) return [title('Candidates'), el('p', { class: 'soft' }, 'This store does not list its candidates.')];
  const mark = id => [l && l.id === id && 'leads', s.id === id && 'this one'].filter(Boolean).map(text => el('em', {}, text));
  return [title('Candidates', candidates.length), el('ol', { class: 'list', tabindex: 0 },
    ...candidates.map(c => el('li', {}, el('span', {}, safe(c.name)), ...mark(c.id))))];
}
function changes({ changes: all }) {
  const item = c => el('li', {}, el('time', {}, clock(c.at)),
    el('span', { class: c.leader ? '' : 'none' }, c.leader ? safe(c.leader.name) + ' leads' : 'no leader'),
    ...(c.leader && c.leader.term != null ? [el('em', {}, `term ${c.leader.term}`)] : []));
  return [title('Changes', all.length), el('ol', { class: 'list', tabindex: 0 }, ...all.map(item).reverse())];
}

// Bars of the timeline with the ages of their beginning and end, in ms.
let bars = [], ticks = [];
function timeline({ changes: all }) {
  const recent = [...new Set(all.filter(c => c.leader).map(c => c.leader.name).reverse())];
  const lanes = recent.length > LANES ? [...recent.slice(0, LANES - 1), null] : recent;
  const height = Math.max(1, lanes.length) * LANE;
  const rows = lanes.flatMap((name, row) => [
    el('text', { class: 'lane', y: row * LANE + 14 }, name == null ? 'others' : safe([...name].slice(0, 40).join(''))),
    el('rect', { class: 'track', y: row * LANE + 22, width: '100%', height: 14, rx: 4 })]);
  bars = all.map((c, i) => {
    const end = i + 1 < all.length ? all[i + 1].age_ms : null, name = c.leader && c.leader.name;
    const row = Math.max(0, lanes.includes(name) ? lanes.indexOf(name) : lanes.length - 1);
    const about = c.leader ? `${safe(name)}, term ${c.leader.term ?? 'unknown'}` : 'no leader';
    const bar = el('rect', c.leader ? { class: colour(name), y: row * LANE + 22, height: 14, rx: 4 } : { class: 'gap', y: 0, height },
      el('title', {}, `${about}, from ${clock(c.at)}`));
    return { bar, begin: c.age_ms, end };
  });
  ticks = [0, 1, 2, 3, 4].map(n => el('text', { x: `${n * 25}%`, y: height + 16,
    'text-anchor': n === 0 ? 'start' : n === 4 ? 'end' : 'middle', class: n % 2 ? 'wide-only' : '' }));
  const gaps = bars.filter(b => b.bar.classList.contains('gap')), led = bars.filter(b => !gaps.includes(b));
  return [title('Timeline'), el('svg', { role: 'img', 'aria-label': 'Leaders over time', height: height + 24 },
    ...rows, ...[...gaps, ...led].map(b => b.bar), ...ticks)];
}
function place(passed) {
  const total = Math.max(SPAN_MIN, ...bars.map(b => b.begin + passed));
  const x = age => 100 - age * 100 / total;
  for (const { bar, begin, end } of bars) {
    const from = x(begin + passed), to = end == null ? 100 : x(end + passed);
    bar.setAttribute('x', from.toFixed(3) + '%');
    bar.setAttribute('width', Math.max(.4, to - from).toFixed(3) + '%');
  }
  ticks.forEach((tick, n) => { tick.textContent = n === 4 ? 'now' : span(total * (4 - n) / 4) + ' ago'; });
}

const drawn = {};
// Elements are replaced only if their texts differ, so that a selection and the place in a list remain.
function draw(id, part, data, key) {
  const state = JSON.stringify(key);
  if (drawn[id] === state) return;
  drawn[id] = state;
  const list = $(id).querySelector('.list'), top = list && list.scrollTop;
  $(id).replaceChildren(...part(data));
  if (top) $(id).querySelector('.list').scrollTop = top;
}
let data, fetched = 0;
function show() {
  const { leader: l } = data, who = l && { ...l, lease_left_ms: l.lease_left_ms != null };
  draw('leader', leader, data, [who, data.obstacle]);
  draw('self', self, data, data.self);
  draw('others', others, data, [data.candidates, l && l.id]);
  draw('changes', changes, data, data.changes.map(c => c.at));
  draw('timeline', timeline, data, data.changes.map(c => c.at));
  bars.forEach((b, i) => { b.begin = data.changes[i].age_ms; if (b.end != null) b.end = data.changes[i + 1].age_ms; });
  document.title = `${l ? safe(l.name) + ' leads' : 'no leader:'} ${safe(data.boundary)}`;
}
function tick() {
  if (!data) return;
  const passed = performance.now() - fetched, { leader: l } = data, bar = $('left');
  place(passed);
  if (bar && l) {
    const left = Math.max(0, l.lease_left_ms - passed), part = Math.min(1, left / l.ttl_ms);
    bar.setAttribute('width', (part * 100).toFixed(1) + '%');
    bar.classList.toggle('low', part < .3);
    $('lease').textContent = `${(left / 1000).toFixed(1)} s of ${(l.ttl_ms / 1000).toFixed(1)} s left of its lease`;
  }
}
async function poll() {
  let wait = POLL;
  if (!document.hidden) {
    try {
      const answer = await fetch('status', { cache: 'no-store', signal: AbortSignal.timeout(4000) });
      if (!answer.ok) throw new Error(answer.status);
      data = await answer.json();
      fetched = performance.now();
      show();
      $('live').textContent = 'live';
      $('live').className = 'pill live';
    } catch {
      $('live').textContent = data ? `no answer for ${span(performance.now() - fetched)}` : 'no answer';
      $('live').className = 'pill lost';
      wait = 2 * POLL;
    }
    tick();
  }
  setTimeout(poll, wait);
}
setInterval(tick, 250);
document.addEventListener('visibilitychange', tick);
poll();
