// People who come for the first time: they sign up, log in, and ask who they are, with a pause of one to three seconds between two steps.
// A password takes a core for milliseconds, so on a small machine more arrive than can be admitted. They are told when to come again, and
// what is judged is how soon those are served who were admitted.

import { sleep } from 'k6';
import { Trend } from 'k6/metrics';
import { ask } from './api.js';
import { options as arrivals, summarise } from './scenario.js';

const latency = {
  signup: new Trend('signup_latency', true),
  login: new Trend('login_latency', true),
  validation: new Trend('token_validation_latency', true),
};
const run = `${Date.now().toString(36)}${Math.floor(Math.random() * 1e6).toString(36)}`;

// Two pauses of two seconds in the mean; the places of people who pause are taken.
export const options = arrivals(4, 1.6, ['signup', 'login', 'token validation'], {
  'http_req_duration{expected_response:true}': ['p(95)<500', 'p(99)<1000'],
  signup_latency: ['p(95)<1000'],
  login_latency: ['p(95)<500'],
  token_validation_latency: ['p(95)<100'],
  errors: ['rate<0.01'],
});
export const handleSummary = summarise;

export default function () {
  const email = `load-${run}-${__VU}-${__ITER}@example.com`;
  const password = `A-strong-one-${__VU}-${__ITER}!`;
  const signup = ask('signup', 'POST', '/api/v1/auth/signup', { body: { email, password, name: 'Load' }, expect: 201 });
  if (!signup) {
    return;
  }
  latency.signup.add(signup.timings.duration);
  pause();
  const login = ask('login', 'POST', '/api/v1/auth/login', { body: { email, password }, read: true });
  if (!login) {
    return;
  }
  latency.login.add(login.timings.duration);
  pause();
  const me = ask('token validation', 'GET', '/api/v1/auth/me', { token: login.json('access_token') });
  if (me) {
    latency.validation.add(me.timings.duration);
  }
}

function pause() {
  sleep(1 + 2 * Math.random());
}
