'use strict';
// Of three schemes for colour-blind readers by Paul Tol: 'muted' on white, 'light' and 'bright' on black.
const COLOURS = {
  light: ['#332288', '#88CCEE', '#44AA99', '#117733', '#999933', '#DDCC77', '#CC6677', '#882255', '#AA4499', '#555555'],
  dark: ['#8C80E8', '#99DDFF', '#44BB99', '#2F9E4F', '#BBCC33', '#EEDD88', '#EE8866', '#D0487C', '#FFAABB', '#DDDDDD'],
};
const MARKERS = ['circle', 'square', 'triangle', 'diamond', 'star', 'hex', 'inverted_triangle', 'square_pin', 'triangle_pin', 'plus'];
const ICONS = ['<circle cx="5" cy="5" r="4"/>', '<path d="M1 1h8v8H1z"/>', '<path d="M5 0l5 9H0z"/>', '<path d="M5 0l4 5-4 5-4-5z"/>'];
const REACH = 14; // pixels between pointer and sample
const BEAT = 750; // milliseconds an epoch
const MOST_NAMES = 30;

const $ = id => document.getElementById(id);
const content = JSON.parse($('content').textContent);
const darkness = matchMedia('(prefers-color-scheme: dark)');
const still = matchMedia('(prefers-reduced-motion: reduce)');
const epochs = [...new Set(content.runs.flatMap(run => run.epochs.map(one => one.epoch)))].sort((a, b) => a - b);
const labels = content.runs[0].labels, trained = content.runs[0].train;
const state = {place: epochs.length - 1, split: 'test', off: new Set(), pointed: null, kept: [], playing: false};
const sheet = new Image();
let maps = [];

function element(tag, text = '', name = '') {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = name;
  return made;
}

async function unpack(text, Type) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Type(await new Response(stream).arrayBuffer());
}

const colour = label => COLOURS[darkness.matches ? 'dark' : 'light'][label % 10];
const ink = () => getComputedStyle(document.documentElement).getPropertyValue('--ink').trim();
const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const inSplit = i => state.split === 'both' || (i < trained) === (state.split === 'train');
const splitName = i => (i < trained ? 'training' : content.test);
const round = value => (Number.isFinite(value) ? value.toPrecision(4) : 'no number');

class FeatureMap {
  constructor(number, run) {
    this.number = number;
    this.run = run;
    this.range = null; // as fitted; where the plot's differs, the reader has moved it
  }

  async load(item) {
    const run = this.run;
    this.points = await unpack(run.points, Uint16Array);
    this.classes = await unpack(run.predicted, run.classBytes === 1 ? Uint8Array : Uint16Array);
    this.odds = await unpack(run.probability, Uint16Array);
    this.likelihoods = run.likelihood && (await unpack(run.likelihood, Float32Array));
    this.box = element('figure', '', 'map');
    this.box.tabIndex = 0;
    this.title = element('figcaption');
    this.plot = element('div', '', 'plot');
    this.box.append(this.title, this.plot);
    $('maps').append(this.box);
    const views = await Bokeh.embed.embed_item(item, this.plot);
    this.view = [...views][0];
    this.figure = this.view.model;
    this.model = name => this.figure.document.get_model_by_name(name);
    this.box.addEventListener('keydown', event => walk(event, this));
  }

  at(place) { // the number of its last epoch until then
    const after = this.run.epochs.findIndex(one => one.epoch > epochs[place]);
    return after < 0 ? this.run.epochs.length - 1 : Math.max(0, after - 1);
  }

  get now() { return this.at(state.place); }
  get outline() { return this.run.epochs[this.now]; }

  where(i, number = this.now) {
    const {low, high} = this.run.epochs[number], many = labels.length;
    return [0, 1].map(k => low[k] + (this.points[(2 * number + k) * many + i] / 65535) * (high[k] - low[k]));
  }

  predicted(i) { return this.classes[this.now * labels.length + i]; }
  probability(i) { return this.odds[this.now * labels.length + i] / 65535; }
  likelihood(i) { return this.likelihoods[this.now * labels.length + i]; }
  wrong(i) { return this.predicted(i) !== labels[i]; }
  sees(i) { return inSplit(i) && !state.off.has(labels[i]) && (!$('mistakes').checked || this.wrong(i)); }

  draw(share = 1, before = this.now) { // a share of the way from one epoch to the present one
    const between = i => {
      const to = this.where(i);
      if (share === 1) return to;
      const from = this.where(i, before);
      return [0, 1].map(k => from[k] + share * (to[k] - from[k]));
    };
    this.seen = labels.map((_, i) => i).filter(i => this.sees(i));
    this.seen.sort((a, b) => this.wrong(a) - this.wrong(b)); // mistakes on top
    const places = this.seen.map(between), edge = ink();
    const xy = points => ({x: points.map(point => point[0]), y: points.map(point => point[1])});
    const fill = (name, data) => { this.model(name).data = data; };
    fill('points', {
      ...xy(places),
      size: this.seen.map(i => (this.wrong(i) ? 8 : 6)),
      marker: this.seen.map(i => MARKERS[Math.floor(labels[i] / 10) % MARKERS.length]),
      colour: this.seen.map(i => colour(labels[i])),
      alpha: this.seen.map(i => (state.split === 'both' && i < trained ? 0.35 : 0.85)),
      edge: this.seen.map(i => (this.wrong(i) ? edge : 'rgba(0,0,0,0)')),
    });
    const {centers, ellipses, contour} = this.outline, on = content.classes.map((_, k) => k).filter(k => !state.off.has(k));
    const shown = name => $(name).checked && share === 1;
    const pick = rows => rows.map(row => on.map(k => row[k]));
    const [cx, cy] = centers ? pick(centers) : [[], []];
    fill('centers', shown('centers') && centers ? {x: cx, y: cy} : {x: [], y: []});
    const [width, height, angle] = ellipses && shown('ellipses') ? pick(ellipses) : [[], [], []];
    const sure = width.length ? on : [];
    fill('ellipses', {x: sure.length ? cx : [], y: sure.length ? cy : [], width, height, angle, colour: sure.map(colour)});
    const lines = contour && shown('contour') ? contour : [];
    fill('contour', {xs: lines.map(line => line[0]), ys: lines.map(line => line[1])});
    this.drawNames(on, places, share, shown('centers') && centers);
    const marked = [...state.kept, ...(state.pointed === null ? [] : [state.pointed])];
    fill('rings', {...xy(marked.map(between)), size: marked.map(i => (i === state.pointed ? 19 : 14))});
    const trail = i => Array.from({length: this.now + 1}, (_, number) => this.where(i, number));
    const trails = state.kept.map(trail).map(xy);
    fill('trails', {xs: trails.map(one => one.x), ys: trails.map(one => one.y)});
    this.caption();
  }

  drawNames(on, places, share, centers) { // at the centers, or where the points of a class are in the middle
    if (share !== 1 || on.length > MOST_NAMES) { this.model('names').data = {x: [], y: [], text: []}; return; }
    const spots = on.map(k => {
      if (centers) return [centers[0][k], centers[1][k]];
      const own = places.filter((_, n) => labels[this.seen[n]] === k);
      const middle = axis => own.map(point => point[axis]).sort((a, b) => a - b)[own.length >> 1];
      return own.length ? [middle(0), middle(1)] : null;
    });
    const have = on.map((k, n) => [k, spots[n]]).filter(([, spot]) => spot);
    this.model('names').data = {
      x: have.map(([, spot]) => spot[0]), y: have.map(([, spot]) => spot[1]), text: have.map(([k]) => content.classes[k]),
    };
  }

  caption() {
    const all = labels.map((_, i) => i).filter(inSplit), wrong = all.filter(i => this.wrong(i)).length;
    const name = maps.length > 1 ? `${this.run.name} ` : '';
    const split = state.split === 'both' ? '' : `${splitName(all[0])} `;
    this.title.textContent = name;
    this.title.append(element('span', `epoch ${this.outline.epoch}: ${wrong} mistakes in ${all.length} ${split}images`));
  }

  fitted(number) { // ranges of equal scale around all that there is
    const chosen = $('fixed').checked ? this.run.epochs : [this.run.epochs[number]];
    const low = [0, 1].map(k => Math.min(...chosen.map(one => reach(one, k, -1))));
    const high = [0, 1].map(k => Math.max(...chosen.map(one => reach(one, k, 1))));
    const size = [this.figure.inner_width || 1, this.figure.inner_height || 1];
    const unit = 1.08 * Math.max((high[0] - low[0]) / size[0], (high[1] - low[1]) / size[1]);
    return [0, 1].map(k => {
      const middle = (low[k] + high[k]) / 2;
      return [middle - (unit * size[k]) / 2, middle + (unit * size[k]) / 2];
    });
  }

  fit(share = 1, before = this.now) {
    const to = this.fitted(this.now), from = share === 1 ? to : this.fitted(before);
    this.range = to.map((ends, k) => ends.map((end, n) => from[k][n] + share * (end - from[k][n])));
    const {x_range: x, y_range: y} = this.figure;
    x.setv({start: this.range[0][0], end: this.range[0][1]});
    y.setv({start: this.range[1][0], end: this.range[1][1]});
  }

  get moved() {
    const {x_range: x, y_range: y} = this.figure, [across, up] = this.range;
    return x.start !== across[0] || x.end !== across[1] || y.start !== up[0] || y.end !== up[1];
  }

  nearest(x, y) {
    const {x_range: range} = this.figure, unit = (range.end - range.start) / this.figure.inner_width;
    let best = null, least = REACH * unit;
    for (const i of this.seen) {
      const [px, py] = this.where(i), far = Math.hypot(px - x, py - y);
      if (far <= least) [best, least] = [i, far];
    }
    return best;
  }

  screen(i) { // pixels in the box of the map
    const [x, y] = this.where(i), {frame} = this.view;
    return [frame.x_scale.compute(x), frame.y_scale.compute(y) + this.plot.offsetTop];
  }

  theme() {
    const text = style('--faint'), line = style('--line'), {figure} = this;
    figure.setv({background_fill_color: style('--panel'), border_fill_color: style('--panel'), outline_line_color: line});
    for (const axis of [...figure.below, ...figure.left])
      axis.setv({major_label_text_color: text, axis_line_color: line, major_tick_line_color: line, minor_tick_line_color: null});
    for (const grid of figure.center) grid.setv({grid_line_color: line, grid_line_alpha: 0.6});
    for (const name of ['contour-lines', 'trail-lines', 'center-marks', 'ring-marks'])
      this.model(name).glyph.setv({line_color: ink()});
    this.model('name-marks').glyph.setv({text_color: ink(), background_fill_color: style('--panel')});
  }
}

function reach(one, k, side) { // how far an epoch's points, centers and ellipses go along an axis
  const most = side < 0 ? Math.min : Math.max;
  let end = most(side < 0 ? one.low[k] : one.high[k], ...(one.centers ? one.centers[k] : []));
  if (one.ellipses && $('ellipses').checked)
    one.ellipses[0].forEach((width, n) => {
      const [height, angle] = [one.ellipses[1][n], one.ellipses[2][n]];
      const parts = k ? [width * Math.sin(angle), height * Math.cos(angle)] : [width * Math.cos(angle), height * Math.sin(angle)];
      end = most(end, one.centers[k][n] + (side * Math.hypot(...parts)) / 2);
    });
  return end;
}

function card(i) {
  const made = element('article', '', 'card'), [width, height] = content.tile, canvas = element('canvas');
  [canvas.width, canvas.height] = content.tile;
  const column = i % content.columns, row = Math.floor(i / content.columns);
  canvas.getContext('2d').drawImage(sheet, column * width, row * height, width, height, 0, 0, width, height);
  const number = i < trained ? i : i - trained, head = element('h2', content.classes[labels[i]]);
  head.prepend(element('small', 'true class'));
  head.append(element('small', `${splitName(i)} image ${number}`));
  const table = element('table');
  const facts = map => [
    ['predicted', content.classes[map.predicted(i)] + (map.wrong(i) ? ' ✗' : ' ✓')],
    ['probability', map.probability(i).toFixed(4)],
    ...(maps.some(one => one.likelihoods) ? [['log-likelihood', map.likelihoods ? round(map.likelihood(i)) : '–']] : []),
  ];
  if (maps.length === 1) for (const fact of facts(maps[0])) table.append(line(fact, maps[0].wrong(i)));
  else {
    table.append(line(['', 'class', 'prob.', 'log-lik.'].slice(0, facts(maps[0]).length + 1)));
    for (const map of maps) table.append(line([map.run.name, ...facts(map).map(fact => fact[1])], map.wrong(i)));
  }
  made.append(canvas, head, table);
  made.dataset.sample = i;
  return made;
}

function line([name, ...values], wrong) {
  const row = element('tr', '', wrong ? 'mistake' : '');
  row.append(element('th', name), ...values.map(value => element('td', value)));
  return row;
}

function point(i, map) {
  $('tip')?.remove();
  if (state.pointed !== i) {
    state.pointed = i;
    maps.forEach(one => one.draw());
  }
  if (i === null) return;
  const tip = card(i), [x, y] = map.screen(i);
  tip.id = 'tip';
  map.box.append(tip);
  const {clientWidth: wide, clientHeight: high} = map.box;
  tip.style.left = `${Math.max(2, x + 18 + tip.offsetWidth > wide ? Math.min(x - 18, wide) - tip.offsetWidth : x + 18)}px`;
  tip.style.top = `${Math.max(2, Math.min(y - 20, high - tip.offsetHeight - 4))}px`;
}

function keep(i) {
  if (i === null) return;
  state.kept = state.kept.includes(i) ? state.kept.filter(other => other !== i) : [i, ...state.kept];
  update();
}

function say(i, map) {
  const parts = [`true class ${content.classes[labels[i]]}`, `predicted ${content.classes[map.predicted(i)]}`, `probability ${map.probability(i).toFixed(2)}`];
  $('spoken').textContent = parts.join(', ');
}

function walk(event, map) {
  const [dx, dy] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key] || [];
  if (dx === undefined || !map.seen.length) return;
  event.preventDefault();
  const [x, y] = state.pointed === null ? map.range.map(ends => (ends[0] + ends[1]) / 2) : map.where(state.pointed);
  let best = state.pointed, least = Infinity;
  for (const i of map.seen) {
    const [px, py] = map.where(i), ahead = (px - x) * dx + (py - y) * dy, aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
    const far = state.pointed === null ? Math.hypot(px - x, py - y) : ahead > 0 && aside <= ahead ? ahead + aside : Infinity;
    if (i !== state.pointed && far < least) [best, least] = [i, far];
  }
  if (best === null) return;
  point(best, map);
  say(best, map);
}

function update() { // all that depends on the state
  point(null);
  maps.forEach(map => map.draw());
  $('slider').value = state.place;
  $('epoch').textContent = `epoch ${epochs[state.place]} / ${epochs[epochs.length - 1]}`;
  $('slider').setAttribute('aria-valuetext', `epoch ${epochs[state.place]}`);
  const cards = state.kept.map(i => {
    const made = card(i), button = element('button', '✕');
    button.setAttribute('aria-label', 'Let go');
    button.addEventListener('click', () => keep(i));
    made.append(button);
    return made;
  });
  $('kept').replaceChildren(...(cards.length ? cards : [element('p', 'Point at a sample to see its image. Click to keep it here.')]));
  document.body.dataset.epoch = epochs[state.place];
}

function go(place) {
  const moved = maps.map(map => map.moved);
  state.place = Math.max(0, Math.min(epochs.length - 1, place));
  maps.forEach((map, n) => { if (!moved[n]) map.fit(); });
  update();
}

function play(on) {
  state.playing = on;
  $('play').firstChild.textContent = on ? '❚❚' : '▶';
  $('play').setAttribute('aria-label', on ? 'Pause' : 'Play');
  if (!on) return;
  if (state.place === epochs.length - 1) go(0);
  step();
}

function step() { // on to the next epoch, which is reached in the first half of a beat
  if (!state.playing) return;
  if (state.place === epochs.length - 1) { play(false); return; }
  const before = maps.map(map => map.now), moved = maps.map(map => map.moved), start = performance.now();
  state.place += 1;
  point(null);
  const frame = time => {
    const share = Math.min(1, (2 * (time - start)) / BEAT), eased = share * share * (3 - 2 * share);
    if (share < 1 && state.playing && !still.matches) {
      maps.forEach((map, n) => {
        if (!moved[n]) map.fit(eased, before[n]);
        map.draw(eased, before[n]);
      });
      requestAnimationFrame(frame);
      return;
    }
    maps.forEach((map, n) => { if (!moved[n]) map.fit(); });
    update();
    setTimeout(step, Math.max(0, BEAT - (performance.now() - start)));
  };
  requestAnimationFrame(frame);
}

function fitAll() {
  maps.forEach(map => map.fit());
  update();
}

function makeClasses() {
  content.classes.forEach((name, k) => {
    const label = element('label'), box = element('input'), text = element('span');
    Object.assign(box, {type: 'checkbox', checked: true, value: k});
    box.addEventListener('change', () => {
      state.off[box.checked ? 'delete' : 'add'](k);
      update();
    });
    text.innerHTML = `<svg viewBox="0 0 10 10" aria-hidden="true">${ICONS[Math.floor(k / 10) % ICONS.length]}</svg>`;
    text.append(name);
    label.append(box, text);
    $('classes').append(label);
  });
  const all = on => () => {
    state.off = new Set(on ? [] : content.classes.keys());
    document.querySelectorAll('#classes input').forEach(box => { box.checked = on; });
    update();
  };
  $('all').addEventListener('click', all(true));
  $('none').addEventListener('click', all(false));
}

function describe() {
  const {runs} = content, of = name => runs.some(run => run.epochs.some(one => one[name]));
  const first = runs[0], many = labels.length - trained;
  const flat = runs.filter(run => run.dimensions > 2);
  const shares = flat.map(run => `${Math.round(100 * run.share)} % of the variance of ${run.dimensions} features`);
  const axes = flat.length
    ? `PCA, fitted once on the last epoch of ${flat.length > 1 ? 'each run' : 'the run'}, the same axes for all epochs: ${shares.join('; ')}.`
    : 'The two axes are the two features.';
  $('about').textContent = `${trained.toLocaleString('en')} training and ${many.toLocaleString('en')} ${content.test} images, ${first.epochs.length} epochs. ${axes}`;
  document.querySelectorAll('[data-needs]').forEach(label => { label.hidden = !of(label.dataset.needs); });
  $('centers-name').textContent = of('ellipses') ? 'class means' : 'centers';
  $('test-name').textContent = content.test;
  const projected = flat.length ? ' of the mixture as projected on this plane' : '';
  $('notes').textContent = [
    of('centers') ? `A cross is a ${of('ellipses') ? 'class mean' : 'center'}.` : '',
    of('ellipses') ? `An ellipse is one standard deviation of a class's Gaussian${flat.length ? ', projected' : ''}.` : '',
    of('contour') ? `Inside the dashed contour, the likelihood${projected} is higher than at the least likely 5 % of the ${content.test} images.` : '',
    of('contour') ? 'Log-likelihoods are those of the mixture with the spread fitted to the training images of the epoch.' : '',
  ].join(' ');
}

function listen() {
  document.addEventListener('map', ({detail: {map: number, kind, x, y}}) => {
    const map = maps[number], i = kind === 'mouseleave' ? null : map.nearest(x, y);
    if (kind === 'tap') {
      keep(i);
      if (i !== null) point(i, map);
    } else if (i !== state.pointed || kind === 'mouseleave') point(i, map);
  });
  document.addEventListener('keydown', event => {
    const typing = ['BUTTON', 'INPUT', 'SUMMARY'].includes(event.target.tagName);
    if (event.key === 'Escape') {
      state.kept = [];
      update();
    } else if (event.key === 'Enter' && !typing) {
      const map = maps.find(one => one.box === event.target) || maps[0], i = state.pointed;
      keep(i);
      if (i !== null) point(i, map);
    } else if (event.key === ' ' && !typing) {
      event.preventDefault();
      play(!state.playing);
    } else if (event.key === ',' || event.key === '.') go(state.place + (event.key === '.' ? 1 : -1));
  });
  $('slider').max = epochs.length - 1;
  $('slider').addEventListener('input', () => {
    play(false);
    go(Number($('slider').value));
  });
  $('play').addEventListener('click', () => play(!state.playing));
  $('fit').addEventListener('click', fitAll);
  for (const name of ['fixed', 'ellipses']) $(name).addEventListener('change', fitAll);
  for (const name of ['mistakes', 'centers', 'contour']) $(name).addEventListener('change', update);
  $('splits').addEventListener('change', event => {
    state.split = event.target.value;
    update();
  });
  darkness.addEventListener('change', paint);
  let waiting;
  new ResizeObserver(() => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      fitAll();
      document.body.dataset.ready = 'yes';
    }, 120);
  }).observe($('maps'));
}

function paint() {
  document.querySelectorAll('#classes svg').forEach((icon, k) => icon.setAttribute('fill', colour(k)));
  maps.forEach(map => map.theme());
  update();
}

async function begin() {
  sheet.src = `data:image/webp;base64,${content.sheet}`;
  await sheet.decode();
  describe();
  makeClasses();
  $('maps').classList.toggle('one', content.runs.length === 1);
  const loaded = content.runs.map((run, number) => new FeatureMap(number, run));
  for (const map of loaded) await map.load(content.maps[map.number]);
  maps = loaded;
  maps.forEach(map => map.fit());
  paint();
  listen(); // whose observer fits the maps once more when the layout has settled
}

begin();
