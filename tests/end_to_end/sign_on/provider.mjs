// A certified OpenID provider on loopback: node provider.mjs OPTIONS, where OPTIONS is a file:
// {"port": 18081, "clients": […], "people": {"alice": {…claims}}, "claims_in_id_token": true}.
// It keeps everything in memory. Any password is right.
import { readFileSync } from 'node:fs';
import { Provider } from 'oidc-provider';

const options = JSON.parse(readFileSync(process.argv[2], 'utf-8'));
const issuer = `http://127.0.0.1:${options.port}`;

const provider = new Provider(issuer, {
  clients: options.clients,
  findAccount: (ctx, name) => options.people[name] && {
    accountId: name,
    claims: () => ({ sub: name, preferred_username: name, ...options.people[name] }),
  },
  claims: {
    openid: ['sub'],
    profile: ['name', 'preferred_username'],
    email: ['email', 'email_verified'],
    groups: ['groups'],
  },
  // By the specification, the claims of scopes are at the userinfo endpoint in the code flow.
  conformIdTokenClaims: !options.claims_in_id_token,
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: (ctx, client, code) =>
    client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  features: {
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true },
    clientCredentials: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    backchannelLogout: { enabled: true },
  },
  cookies: { keys: ['not-a-secret-in-tests'] },
  ttl: {
    AccessToken: 300, IdToken: 300, RefreshToken: 3600, Session: 3600, Grant: 3600,
    Interaction: 600, DeviceCode: 600, ClientCredentials: 300,
  },
});

// Its pages import a font from the network.
provider.use(async (ctx, next) => {
  await next();
  if (typeof ctx.body === 'string') ctx.body = ctx.body.replace(/@import url\([^)]*\);/g, '');
});

provider.listen(options.port, '127.0.0.1', () => console.log('listening', issuer));
