// People who use the platform, one request and then a pause of two seconds in the mean. What they do is a mix of `MIXES`, by weight; each
// request is one of somebody who exists, with an id that exists (`PEOPLE`, a file that `e2e load` writes).

import http from 'k6/http';
import { Counter } from 'k6/metrics';
import { SharedArray } from 'k6/data';
import { ask } from './api.js';
import { options as arrivals, scenario, summarise } from './scenario.js';

const people = new SharedArray('people', () => JSON.parse(open(__ENV.PEOPLE)));
/// Messages that the server has acknowledged: as many must be in the database in the end.
const acknowledged = new Counter('acknowledged');
/// Own writes that a read which brought its token did not show.
const stale = new Counter('stale');
/// One in so many writers looks at once for what was written.
const LOOKS = 10;
/// Each message has a text of its own, whatever ran before.
const run = `${Date.now().toString(36)}${Math.floor(Math.random() * 1e9).toString(36)}`;
const FILE = 'a line of a file that somebody shares with a workroom\n'.repeat(150);

const MIXES = {
  conversations: [
    [3, 'conversations', (person) => ask('conversations', 'GET', '/api/v1/conversations', person)],
    [2, 'memories', (person) => ask('memories', 'GET', '/api/v1/memories', person)],
    [1, 'search', (person) => ask('search', 'GET', '/api/v1/memories/search?q=project', person)],
    [2, 'message', (person) => say('message', `/api/v1/conversations/${person.conversation}/messages`, person)],
  ],
  workrooms: [
    [3, 'workrooms', (person) => ask('workrooms', 'GET', '/api/v1/workrooms', person)],
    [2, 'message', (person) => say('message', `/api/v1/workrooms/${person.workroom}/messages`, person)],
    [1, 'upload', upload],
  ],
  plans: [
    [3, 'catalog', () => ask('catalog', 'GET', '/api/v1/plans/catalog?region=LOAD')],
    [2, 'recommendations', (person) => ask('recommendations', 'GET', '/api/v1/recommendations/me', person)],
    [1, 'profile', (person) => ask('profile', 'GET', '/api/v1/users/profile', person)],
  ],
  syncs: [
    [3, 'list of syncs', (person) => ask('list of syncs', 'GET', '/api/v1/syncs?page=1&per_page=20', person)],
    [1, 'start of a sync', (person) => ask('start of a sync', 'POST', '/api/v1/syncs', { token: person.token, body: {}, expect: 202 })],
  ],
};

const mix = MIXES[scenario.does];
const total = mix.reduce((sum, [weight]) => sum + weight, 0);
/// As many people as the scenario has at most take part, of those who exist.
const part = Math.min(people.length, Math.max(scenario.from, ...scenario.stages.map((stage) => stage.users)));

// Thinking takes no place: a place is taken for the time of one request only.
export const options = arrivals(2, 0.2, [...mix.map(([, step]) => step), 'own write'], {
  http_req_duration: [`p(95)<${scenario.p95}`, `p(99)<${scenario.p99}`],
  // Or a server that refuses would be a quick one.
  refused: ['count==0'],
  stale: ['count==0'],
});
export const handleSummary = summarise;

export default function () {
  const person = people[Math.floor(Math.random() * part)];
  let left = Math.random() * total;
  const [, , act] = mix.find(([weight]) => (left -= weight) < 0) || mix[0];
  act(person);
}

function say(step, path, person) {
  const body = { content: `about the project, said by ${__VU} for the ${__ITER}. time in ${run}` };
  const looks = Math.random() * LOOKS < 1;
  const answer = ask(step, 'POST', path, { token: person.token, body, expect: 201, read: looks });
  if (!answer) {
    return;
  }
  acknowledged.add(1);
  if (looks) {
    const headers = { 'x-consistency-token': answer.headers['X-Consistency-Token'] };
    const page = ask('own write', 'GET', path, { token: person.token, headers, read: true });
    // Others write to the same place meanwhile, but not a whole page.
    stale.add(page && !page.body.includes(answer.json('id')) ? 1 : 0);
  }
}

function upload(person) {
  const body = { workroom_id: person.workroom, file: http.file(FILE, 'shared.txt', 'text/plain') };
  return ask('upload', 'POST', '/api/v1/resources', { token: person.token, body, expect: 201 });
}
