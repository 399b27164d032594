#include "sim/suites/libero/controller.h"

#include <math.h>
#include <string.h>

static const double kp = 150.0, posture_kp = 10.0, gripper_speed = 0.01;
static const double reach[6] = { 0.05, 0.05, 0.05, 0.5, 0.5, 0.5 };     /* m, rad of a full action */

const double controller_rest_posture[ARM] = { 0, -1.61037389e-01, 0.00, -2.44459747e00, 0.00, 2.22675220e00, M_PI / 4 };

/* ---- small dense algebra, row-major -------------------------------------------------------------------- */

/* C (n,m) = A (n,k) B (k,m) */
static void multiply(const double *A, const double *B, int n, int k, int m, double *C)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) {
            double sum = 0;

            for (int l = 0; l < k; l++)
                sum += A[i * k + l] * B[l * m + j];
            C[i * m + j] = sum;
        }
}

/* C (n,m) = A (n,k) B' with B (m,k) */
static void multiply_transposed(const double *A, const double *B, int n, int k, int m, double *C)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) {
            double sum = 0;

            for (int l = 0; l < k; l++)
                sum += A[i * k + l] * B[j * k + l];
            C[i * m + j] = sum;
        }
}

/* Inverse of a symmetric positive definite matrix by Cholesky; robosuite takes inv and pinv, which here is the same: armature
 * keeps M, and the arm away from singular postures keeps J M^-1 J', far from losing rank. */
static void invert(const double *A, int n, double *ret)
{
    double L[ARM * ARM] = {0}, Li[ARM * ARM] = {0};

    for (int j = 0; j < n; j++)
        for (int i = j; i < n; i++) {
            double sum = A[i * n + j];

            for (int k = 0; k < j; k++)
                sum -= L[i * n + k] * L[j * n + k];
            L[i * n + j] = i == j ? sqrt(fmax(sum, 1e-300)) : sum / L[j * n + j];
        }
    for (int j = 0; j < n; j++)
        for (int i = j; i < n; i++) {
            double sum = i == j;

            for (int k = j; k < i; k++)
                sum -= L[i * n + k] * Li[k * n + j];
            Li[i * n + j] = sum / L[i * n + i];
        }
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;

            for (int k = i > j ? i : j; k < n; k++)
                sum += Li[k * n + i] * Li[k * n + j];
            ret[i * n + j] = sum;
        }
}

static void add_cross(const double *R, const double *G, int column, double sum[3])
{
    const double a[3] = { R[column], R[3 + column], R[6 + column] }, b[3] = { G[column], G[3 + column], G[6 + column] };

    sum[0] += a[1] * b[2] - a[2] * b[1];
    sum[1] += a[2] * b[0] - a[0] * b[2];
    sum[2] += a[0] * b[1] - a[1] * b[0];
}

/* ---- pieces ---------------------------------------------------------------------------------------------- */

void controller_rotation(const double v[3], double ret_R[9])
{
    const double angle = sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    double xyzw[4] = { 0, 0, 0, 1 }, n = 0, s;
    float q[4], p[4][4];        /* w x y z */

    if (angle != 0) {
        for (int i = 0; i < 3; i++)
            xyzw[i] = v[i] / angle * sin(angle / 2);
        xyzw[3] = cos(angle / 2);
    }
    for (int i = 0; i < 4; i++)
        q[i] = (float)xyzw[(i + 3) % 4];
    for (int i = 0; i < 4; i++)
        n += (double)(q[i] * q[i]);     /* products in float, their sum in double: BLAS' sdot */
    s = sqrt(2.0 / (double)(float)n);
    for (int i = 0; i < 4; i++)
        q[i] = (float)((double)q[i] * s);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            p[i][j] = q[i] * q[j];
    ret_R[0] = 1.0 - (double)p[2][2] - (double)p[3][3];     /* diagonal in double, the rest in float */
    ret_R[4] = 1.0 - (double)p[1][1] - (double)p[3][3];
    ret_R[8] = 1.0 - (double)p[1][1] - (double)p[2][2];
    ret_R[1] = (double)(p[1][2] - p[3][0]);
    ret_R[2] = (double)(p[1][3] + p[2][0]);
    ret_R[3] = (double)(p[1][2] + p[3][0]);
    ret_R[5] = (double)(p[2][3] - p[1][0]);
    ret_R[6] = (double)(p[1][3] - p[2][0]);
    ret_R[7] = (double)(p[2][3] + p[1][0]);
}

void controller_cache(struct controller *c, const mjModel *model, mjData *data, int site)
{
    const int nv = (int)model->nv;
    double *jp, *jr, *full;

    mj_markStack(data);
    jp = mj_stackAllocNum(data, (size_t)(3 * nv));
    jr = mj_stackAllocNum(data, (size_t)(3 * nv));
    full = mj_stackAllocNum(data, (size_t)nv * (size_t)nv);
    mj_jacSite(model, data, jp, jr, site);
    mj_fullM(model, full, data->qM);
    memcpy(c->x, data->site_xpos + 3 * site, sizeof(c->x));
    memcpy(c->R, data->site_xmat + 9 * site, sizeof(c->R));
    for (int i = 0; i < 3; i++) {
        c->v[i] = c->w[i] = 0;
        for (int k = 0; k < nv; k++) {
            c->v[i] += jp[i * nv + k] * data->qvel[k];
            c->w[i] += jr[i * nv + k] * data->qvel[k];
        }
        memcpy(c->Jp + i * ARM, jp + i * nv, sizeof(double) * ARM);
        memcpy(c->Jr + i * ARM, jr + i * nv, sizeof(double) * ARM);
    }
    for (int i = 0; i < ARM; i++)
        memcpy(c->M + i * ARM, full + i * nv, sizeof(double) * ARM);
    memcpy(c->q, data->qpos, sizeof(c->q));
    memcpy(c->dq, data->qvel, sizeof(c->dq));
    mj_freeStack(data);
    c->stale = 0;
}

void controller_reset(struct controller *c)
{
    memcpy(c->goal_x, c->x, sizeof(c->x));
    memcpy(c->goal_R, c->R, sizeof(c->R));
    memcpy(c->posture, c->q, sizeof(c->q));
    c->gripper[0] = c->gripper[1] = 0;
}

void controller_goal(struct controller *c, const double action[6])
{
    double delta[6], turn[9];

    for (int i = 0; i < 6; i++)
        delta[i] = fmin(fmax(action[i], -1.0), 1.0) * reach[i];
    if (delta[3] != 0 || delta[4] != 0 || delta[5] != 0) {
        controller_rotation(delta + 3, turn);
        multiply(turn, c->R, 3, 3, 3, c->goal_R);
    }
    for (int i = 0; i < 3; i++)
        c->goal_x[i] = c->x[i] + delta[i];
}

/* Desired force and torque at the grip site. */
static void wrench(const struct controller *c, double F[3], double T[3])
{
    const double kd = 2 * sqrt(kp);
    double turn[3] = { 0, 0, 0 };

    for (int i = 0; i < 3; i++)
        add_cross(c->R, c->goal_R, i, turn);
    for (int i = 0; i < 3; i++) {
        F[i] = kp * (c->goal_x[i] - c->x[i]) - kd * c->v[i];
        T[i] = kp * (0.5 * turn[i]) - kd * c->w[i];
    }
}

/* Lambda of a Jacobian of n rows: inverse of J M^-1 J'. */
static void task_inertia(const double *J, const double *Mi, int n, double *ret)
{
    double JMi[6 * ARM], A[36];

    multiply(J, Mi, n, ARM, ARM, JMi);
    multiply_transposed(JMi, J, n, ARM, n, A);
    invert(A, n, ret);
}

static void torques(const struct controller *c, const double *qfrc_bias, double tau[ARM])
{
    double J[6 * ARM], Mi[ARM * ARM], full[36], of_x[9], of_R[9], F[3], T[3], load[6];
    double Jbar[ARM * 6], MiJt[ARM * 6], N[ARM * ARM], pull[ARM], Mpull[ARM];

    memcpy(J, c->Jp, sizeof(c->Jp));
    memcpy(J + 3 * ARM, c->Jr, sizeof(c->Jr));
    invert(c->M, ARM, Mi);
    task_inertia(J, Mi, 6, full);
    task_inertia(c->Jp, Mi, 3, of_x);
    task_inertia(c->Jr, Mi, 3, of_R);
    wrench(c, F, T);
    multiply(of_x, F, 3, 3, 1, load);
    multiply(of_R, T, 3, 3, 1, load + 3);

    multiply_transposed(Mi, J, ARM, ARM, 6, MiJt);
    multiply(MiJt, full, ARM, 6, 6, Jbar);
    multiply(Jbar, J, ARM, 6, ARM, N);
    for (int i = 0; i < ARM; i++) {
        pull[i] = posture_kp * (c->posture[i] - c->q[i]) - 2 * sqrt(posture_kp) * c->dq[i];
        for (int j = 0; j < ARM; j++)
            N[i * ARM + j] = (i == j) - N[i * ARM + j];
    }
    multiply(c->M, pull, ARM, ARM, 1, Mpull);
    for (int i = 0; i < ARM; i++) {
        double task = 0, null = 0;

        for (int k = 0; k < 6; k++)
            task += J[k * ARM + i] * load[k];
        for (int k = 0; k < ARM; k++)
            null += N[k * ARM + i] * Mpull[k];
        tau[i] = task + qfrc_bias[i] + null;
    }
}

void controller_run(struct controller *c, const mjModel *model, const double *qfrc_bias, double gripper_action, double *ctrl)
{
    const double direction = gripper_action > 0 ? 1.0 : gripper_action < 0 ? -1.0 : 0.0;
    double tau[ARM];

    torques(c, qfrc_bias, tau);
    for (int i = 0; i < ARM; i++)
        ctrl[i] = fmin(fmax(tau[i], model->actuator_ctrlrange[2 * i]), model->actuator_ctrlrange[2 * i + 1]);
    for (int i = 0; i < 2; i++) {
        const double lo = model->actuator_ctrlrange[2 * (ARM + i)], hi = model->actuator_ctrlrange[2 * (ARM + i) + 1];

        c->gripper[i] = fmin(fmax(c->gripper[i] + (i ? gripper_speed : -gripper_speed) * direction, -1.0), 1.0);
        ctrl[ARM + i] = 0.5 * (hi + lo) + 0.5 * (hi - lo) * c->gripper[i];
    }
    c->stale = 1;
}
