// Which scenario runs, and what k6 is told of it. Arrivals are open: requests begin at their times, whether the ones before are answered
// or not, so that a server that is slow cannot slow down who measures it.

const all = JSON.parse(open('./scenarios.json'));
const name = __ENV.SCENARIO || 'smoke';
if (!all[name]) {
  throw new Error(`there is no scenario ${name}; there are ${Object.keys(all).join(', ')}`);
}

export const scenario = all[name];

/// Users are people who wait between two requests. `cycle` is the mean time of one of them from a beginning to the next, in seconds;
/// `busy` the share of it in which a user takes a place, pauses included.
export function options(cycle, busy, steps, thresholds) {
  const most = Math.max(scenario.from, ...scenario.stages.map((stage) => stage.users));
  const places = Math.min(Math.ceil(most * busy) + 20, 2500);
  const perStep = Object.fromEntries(steps.map((step) => [`http_req_duration{step:${step},expected_response:true}`, ['max>=0']]));
  return {
    discardResponseBodies: true,
    systemTags: ['status', 'error_code', 'expected_response'],
    summaryTrendStats: ['avg', 'p(50)', 'p(95)', 'p(99)', 'max', 'count'],
    thresholds: { ...perStep, dropped_iterations: ['count==0'], errors: ['rate<0.001'], ...thresholds },
    scenarios: {
      [name]: {
        executor: 'ramping-arrival-rate',
        startRate: scenario.from,
        timeUnit: `${cycle}s`,
        preAllocatedVUs: places,
        maxVUs: places * 2,
        stages: scenario.stages.map((stage) => ({ target: stage.users, duration: `${stage.seconds}s` })),
        gracefulStop: '30s',
      },
    },
  };
}

/// What is printed in the end, and kept in the folder `RESULTS` if one is named.
export function summarise(data) {
  const value = (metric, field) => (data.metrics[metric] ? data.metrics[metric].values[field] || 0 : 0);
  const figures = (metric) => {
    const values = data.metrics[metric].values;
    return { count: values.count, avg: values.avg, p50: values['p(50)'], p95: values['p(95)'], p99: values['p(99)'], max: values.max };
  };
  const steps = {};
  for (const metric of Object.keys(data.metrics)) {
    const step = /^http_req_duration\{step:(.+),expected_response:true\}$/.exec(metric);
    if (step && data.metrics[metric].values.count > 0) {
      steps[step[1]] = figures(metric);
    }
  }
  const missed = Object.entries(data.metrics).flatMap(([metric, { thresholds }]) =>
    Object.entries(thresholds || {}).filter(([, { ok }]) => !ok).map(([rule]) => `${metric}: ${rule}`));
  const summary = {
    scenario: name,
    all: figures('http_req_duration'),
    steps,
    requests_per_second: value('http_reqs', 'rate'),
    iterations: value('iterations', 'count'),
    error_rate: value('errors', 'rate'),
    refused: value('refused', 'count'),
    dropped: value('dropped_iterations', 'count'),
    acknowledged: value('acknowledged', 'count'),
    unknown: value('unknown', 'count'),
    stale: value('stale', 'count'),
    missed,
  };
  const files = { stdout: report(summary) };
  if (__ENV.RESULTS) {
    files[`${__ENV.RESULTS}/summary.json`] = `${JSON.stringify(summary, null, 2)}\n`;
  }
  return files;
}

function report(summary) {
  const ms = (number) => number.toFixed(1).padStart(9);
  const line = (title, f) =>
    `${title.padEnd(22)} ${String(f.count).padStart(9)} ${ms(f.p50)} ${ms(f.p95)} ${ms(f.p99)} ${ms(f.avg)} ${ms(f.max)}`;
  return [
    '',
    `${'milliseconds'.padEnd(22)} ${'count'.padStart(9)} ${'p50'.padStart(9)} ${'p95'.padStart(9)} ${'p99'.padStart(9)} ${'avg'.padStart(9)} ${'max'.padStart(9)}`,
    ...Object.entries(summary.steps).map(([step, f]) => line(step, f)),
    line('all', summary.all),
    '',
    `${summary.requests_per_second.toFixed(1)} requests/s, ${summary.iterations} iterations, ${(summary.error_rate * 100).toFixed(3)} % errors, ` +
      `${summary.refused} told to come again later, ${summary.dropped} not begun in time`,
    summary.missed.length ? `missed: ${summary.missed.join('; ')}` : 'every threshold is met',
    '',
  ].join('\n');
}
