import numpy as np
import pytest

from kspecpipe.combine.smooth import block_median, median_of, running_mean


def test_the_median_leaves_gaps_where_there_is_nothing():
    stack = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan], [8.0, 7.0, np.nan]])
    assert median_of(stack).tolist()[:2] == [3.0, 6.0]
    assert np.isnan(median_of(stack)[2])


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_the_median_is_that_of_numpy(count):
    rng = np.random.default_rng(count)
    stack = rng.normal(size=(count, 4, 50))
    stack[rng.uniform(size=stack.shape) < 0.2] = np.nan
    stack[0, 0] = 1.0  # at least one value in each column that is compared
    assert median_of(stack)[0] == pytest.approx(np.nanmedian(stack[:, 0], axis=0))


def test_a_running_mean_takes_what_is_known():
    row = np.array([[1.0, np.nan, 3.0, 5.0, np.nan, np.nan, np.nan, np.nan]])
    mean = running_mean(row, 3)
    assert mean[0, :4].tolist() == pytest.approx([1.0, 2.0, 4.0, 4.0])
    assert np.isnan(mean[0, 6:]).all()


def test_a_straight_line_stays_one_between_the_blocks():
    row = np.arange(640.0)[None]
    smooth = block_median(row, 64)
    assert np.abs(smooth - row)[0, 32:-32].max() < 1e-9
    assert np.abs(smooth - row).max() <= 32  # flat beyond the middle of the outer blocks


def test_blocks_without_data_take_their_neighbours_value():
    row = np.full((2, 300), 4.0)
    row[0, 100:200] = np.nan
    row[1, :] = np.nan
    smooth = block_median(row, 50)
    assert (smooth[0] == 4.0).all()
    assert np.isnan(smooth[1]).all()


def test_a_spike_does_not_move_a_block():
    row = np.full((1, 128), 2.0)
    row[0, 40] = 1e6
    assert (block_median(row, 64) == 2.0).all()
